"""All claims, by the names that they are run by."""

from _claims_learned import ROWS as LEARNED
from _claims_networks import ROWS as NETWORKS

ROWS = {row.name: row for row in (*LEARNED, *NETWORKS)}
