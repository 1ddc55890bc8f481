"""Every number that decides which flow a default run takes and how long it warms up.

Each has its unit and what it was measured on. CUT_OFF of `flowmcmc.reading.edges`, below which an end of a coordinate
counts as cut off, is the one number that the verdict shares. ``benchmarks/policy.py`` halves and doubles each of them
on the targets of ``tests/support/golden.py`` and stores what that does (``benchmarks/results/policy.json``).
"""

# --- when a flow is good enough ------------------------------------------------------------------------------------

ENOUGH = 0.4  # mean acceptance of flow proposals at which no dearer flow is tried
MAX_WAIT = 15  # rounds in a row without an accepted proposal, for the worst chain
CHEAP_WAIT = 30  # the same for a flow that is fitted: layers take longer to train than such waits cost
OFTEN = 0.1  # share of rounds with an accepted proposal that is enough for a fitted flow, if all chains have their part
CHANCE = 4.0  # times the longest wait to be expected if proposals are as hard to come by everywhere
HOPELESS = 0.2  # acceptance below which anything is tried that may be better

# --- which is taken ------------------------------------------------------------------------------------------------

MIN_GAIN = 2.0  # times as many effective draws for each proposal, for a flow that is dearer than an earlier one
CUT_OFF_WORTH = 0.1  # share of its effective draws that a flow is credited with where chains are cut off

# --- how long a flow warms up --------------------------------------------------------------------------------------

BLOCK = 0.35  # of the rounds asked for; a mixture gets one block
MAX_BLOCKS = 9  # for flows that go on gaining
MEMORY = 4  # times as many states are remembered for flows that follow necks and ridges: their ends are rare
MIN_FIRST_GAIN = 0.03  # nats of held-out loss that the first fit of such a flow must gain on the flow before
STARVED = 0.05  # acceptance of one normal component from which on more states would raise it
GAINS = 0.01  # in acceptance from one block to the next: still learning
NO_WAIT = 5  # rounds; longer ones show an end of a neck or ridge that the flow does not follow yet
STILL_LEARNING = 0.01  # nats of held-out loss in half a block of gradient steps

# --- what states promise, before a flow is compiled ----------------------------------------------------------------

PRODUCT = 0.3  # nats that mixtures of single coordinates must promise to gain, to be tried
DOUBT = 3.0  # nats by which the promise may fall short: spacings count the gap between two wells as mass of both
FEW = 100  # rows, too few for spacings to tell
CLIP = 3.0  # deviations; beyond them a few rows of a heavy tail would make parabolas
RIDGE = 0.5  # share of the variance left by a straight line that a parabola explains

# --- rounds with fits between them ---------------------------------------------------------------------------------

ROUNDS = 5  # between two looks
SLOTS = 8  # mixture components that rounds have room for at least: more of them are found as states come in
SLOT_NUMBERS = 4096  # or as many components as have so many numbers in their matrices: unused ones cost time
RECENT = 20  # looks, at most half of the rounds, that the ends of coordinates are judged from
GROWTH = 2.0  # times as many states as at the last fit, for another one
LAST_FIT = 0.85  # of a block, when it is fitted once more, so that the step size can follow

# --- the search from a wide density --------------------------------------------------------------------------------

SMC_STEPS = 4  # moves a stage; particles need not be perfect, chains put them right
