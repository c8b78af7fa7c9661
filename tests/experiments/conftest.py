"""Scripts in this process."""

from in_process import Call as Call
from in_process import call as call
