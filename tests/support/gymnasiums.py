"""What Gymnasium's own wrappers know, which depends on its version."""

import gymnasium
from packaging.version import Version

# Before, few knew AutoresetMode.SAME_STEP, and one counted wrongly under it.
KNOWS_SAME_STEP = Version(gymnasium.__version__) >= Version("1.4")
MISCOUNTS = "it counts a step less in every episode but the first before gymnasium 1.4"
