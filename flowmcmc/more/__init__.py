"""More draws from a result: until they are enough, or to a folder."""
