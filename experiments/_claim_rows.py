"""All claims, by the names that they are run by."""

from _claims_discovery import ROWS as DISCOVERY
from _claims_learned import ROWS as LEARNED
from _claims_networks import ROWS as NETWORKS
from _claims_puzzles import ROWS as PUZZLES

ROWS = {row.name: row for row in (*LEARNED, *NETWORKS, *DISCOVERY, *PUZZLES)}
