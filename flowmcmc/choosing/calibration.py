"""The numbers of the rule by which a default run takes a flow and warms up.

Each has its unit. ``python benchmarks/policy.py --show`` says what halving and doubling each of them does to default
runs on eight targets. The flows' prices and local kernels stand in the table of `candidates`; CUT_OFF, below which an
end of a coordinate counts as cut off, in `flowmcmc.reading.edges`, and MAX_RHAT in `flowmcmc.reading.convergence`,
since the verdict shares them.
"""

# --- when a flow is good enough ------------------------------------------------------------------------------------

ENOUGH = 0.4  # mean acceptance of flow proposals at which no dearer flow is tried
MAX_WAIT = 15  # rounds in a row without an accepted proposal, for the worst chain
CHEAP_WAIT = 30  # the same for a flow that is fitted: layers take longer to train than such waits cost
OFTEN = 0.1  # share of rounds with an accepted proposal that is enough for a fitted flow, if all chains have their part
CHANCE = 4.0  # a wait may be so many times the longest one that is expected if all chains accept alike
HOPELESS = 0.2  # acceptance below which anything is tried that may be better

# --- which is taken ------------------------------------------------------------------------------------------------

MIN_EFFICIENCY_RATIO = 2.0  # times the effective draws a proposal of an earlier flow, for one that is dearer
CUT_OFF_WORTH = 0.1  # share of its effective draws that a flow is credited with where chains are cut off

# --- how long a flow warms up --------------------------------------------------------------------------------------

BLOCK = 0.35  # of the rounds asked for; a flow that does not go on gaining gets one block
MAX_BLOCKS = 9  # for flows that go on gaining
MEMORY = 4  # times as many states are remembered for flows that follow necks and ridges: their ends are rare
MIN_FIRST_GAIN = 0.03  # nats of held-out loss that the first fit of such a flow must gain on the flow before
STARVED = 0.05  # acceptance of one normal component from which on more states would raise it
GAINS = 0.01  # in acceptance from one block to the next: still learning
SHORT_WAIT = 5  # rounds; longer waits show an end of a neck or ridge that the flow does not follow yet
STILL_LEARNING = 0.01  # nats of held-out loss in half a block of gradient steps

SETTLED = 0.6  # mean acceptance at which a block may end before its time, if nothing is learned and no chain waits
MIN_SETTLED = 40  # rounds after which that is asked, once
BUDGET_SHARE = 0.5  # of the seconds or evaluations allowed, after which warm-up ends
BUDGET_PIECE = 20  # rounds of layers between two looks at the budget, where there is one

# --- what a round of production is made of -------------------------------------------------------------------------

LOCAL_COST = 0.25  # of the evaluations of flow proposals: what local steps may cost where they are hardly needed
LOCAL_SHARE = 0.25  # of the rounds with local steps where proposals are accepted but some chain waits longer than that
ACCEPTED = 0.5  # of a proposal: as many proposals make a round as it takes to accept so much

# --- when there are enough draws -----------------------------------------------------------------------------------

NUM_SAMPLES = 1000  # rounds at most
MIN_ESS = 20000  # effective draws: a mode's weight is then known to 0.0035
FIRST_DRAWS = 100  # rounds before the first look; arviz's r-hat is noisy below
FIRST_PIECE = 20  # rounds, to learn what one costs where there is a budget, and at least from one look to the next
MARGIN = 1.1  # times as many more rounds as seem to be missing
QUICK = 0.8  # share of the effective draws wanted that the quick estimate must find before arviz looks

# --- what states promise, before a flow is compiled ----------------------------------------------------------------

PRODUCT = 0.3  # nats that mixtures of single coordinates must promise to gain, to be tried
DOUBT = 3.0  # nats by which the promise may fall short: spacings count the gap between two wells as mass of both
FEW = 100  # rows, too few for spacings to tell
CLIP = 3.0  # deviations; beyond them a few rows of a heavy tail would make parabolas
RIDGE = 0.5  # share of the variance left by a straight line that a parabola explains

# --- rounds with fits between them ---------------------------------------------------------------------------------

ROUNDS = 5  # between two looks
SLOTS = 8  # mixture components that rounds have room for at least: more of them are found as states come in
SLOT_NUMBERS = 4096  # but for at most SLOT_NUMBERS // d^2 components: unused ones cost time
RECENT = 20  # looks, at most half of the rounds, that the ends of coordinates are judged from
GROWTH = 2.0  # times as many states as at the last fit, for another one
LAST_FIT = 0.85  # of a block, when it is fitted once more, so that the step size can follow

# --- the search from a wide density --------------------------------------------------------------------------------

SMC_STEPS = 4  # moves a stage where local steps alone move the particles
WAVE = 4  # times as many draws of the start, one evaluation each, as there are particles in a stage
STAGE_ESS = 0.5  # effective draws of all particles at the next inverse temperature, beside the particles of a stage
PROPOSING = 0.3  # acceptance from which proposals alone move the particles
STAGE_PROPOSALS = 2  # in a round that has local steps
STAGE_SLOTS = 4  # mixture components that rounds have room for at least
DECORRELATED = 0.1  # correlation of log densities with those that were resampled, below which a stage ends
MAX_ROUNDS = 6  # of a stage; particles need not be perfect, chains put them right
