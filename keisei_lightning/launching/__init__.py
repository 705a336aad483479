"""Several ranks on this machine: started, watched and stopped together.

::

    parent (no torch) --function--> rank 0, rank 1, ... --outcome--> parent --result of rank 0, or one error-->
           |                            |
           +-- stop (a signal) -------->+-- present phase, in shared memory -->  "killed by SIGKILL while learning"

The function is the whole training; what it is made of, this room does not know. The ranks find one another as under
torchrun, by the variables of torch's ``env://`` rendezvous, so that Lightning starts nothing by itself.

Lightning's own launcher types the command line once more for each rank, and a sweep would start again in each. torch's
launcher, called from a program (``torch.distributed.launcher.elastic_launch``), kills the ranks 30 seconds after a
signal, however long a checkpoint takes, leaves its handlers of signals to the next job, and needs torch in the parent.
"""

from keisei_lightning.launching.launcher import run_ranks
from keisei_lightning.launching.outcomes import agreed
from keisei_lightning.launching.phases import Phase, enter, present_phase

__all__ = ["Phase", "agreed", "enter", "present_phase", "run_ranks"]
