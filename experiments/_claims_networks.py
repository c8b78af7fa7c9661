"""Claims of ENAT, and what natgym asks itself: co-training."""

from __future__ import annotations

from _claim_parts import GENERATED, SIX, WHOLE, drawn, generator, generators, learned
from _claim_terms import Row, Statement

_CUTS = {
    "nat": "",
    "nat-blind-visible": "--cut visible-masked",
    "nat-blind-masked": "--cut masked-visible",
}
_ATTENTION = Row(
    name="enat-attention",
    paper="ENAT",
    claim="Cutting attention from visible to mask tokens costs next to nothing, from mask to visible ruins",
    reported="FID 6.54 whole, 6.76 and 201.88",
    task="digits",
    steps="8",
    budget=WHOLE + "; next to nothing is a tenth, ruined is twice the distance",
    chooses=GENERATED,
    commands=generators(_CUTS, 8),
    statements=(
        Statement(ours="nat-blind-visible-T8: maskgit", theirs="nat-T8: maskgit", allowed=0.1),
        Statement(ours="nat-T8: maskgit", theirs="nat-blind-masked-T8: maskgit", allowed=-0.5),
    ),
    seeds=SIX,
    attempts=2,  # the first, three trainings of 600 updates, left the one open and held for the other
)
_ENAT = {"enat": "--model enat", "enat-anew": "--model enat --reuse 0"}
_COMPUTE = Row(
    name="enat-compute",
    paper="ENAT",
    claim="An encoder of visible tokens and a decoder of mask tokens is nearer, for fewer operations",
    reported="FID 4.97 for 22.6 GFLOP, 6.54 for 39.6",
    task="digits",
    steps="8",
    budget=WHOLE,
    chooses=GENERATED,
    commands=generators({"nat": "", "enat": _ENAT["enat"]}, 8),
    statements=(
        Statement(ours="enat-T8: maskgit", theirs="nat-T8: maskgit"),
        Statement(ours="enat-T8: maskgit", theirs="nat-T8: maskgit", metric="gflop"),
    ),
    seeds=SIX,
    attempts=2,  # the first, three trainings of 600 updates, failed, too
)
_BLOCKS = Row(
    name="enat-blocks",
    paper="natgym",
    claim="With more decoder than encoder blocks ENAT is nearer than NAT in as many operations",
    reported="not asked; the paper has 22 + 2 blocks",
    task="digits",
    steps="8 and 5",
    budget=WHOLE + "; ENAT of 1 + 2 blocks, of five geometries the nearest on select after one training of "
    "another seed; NAT at T = 5, where it takes as many operations",
    chooses=GENERATED,
    commands=(
        generator("nat", ""),
        drawn("nat", 5),
        *generators({"enat-1-2": "--model enat --depth 1 --decoder-depth 2"}, 8),
    ),
    statements=(
        Statement(ours="enat-1-2-T8: maskgit", theirs="nat-T5: maskgit"),
        Statement(ours="enat-1-2-T8: maskgit", theirs="nat-T5: maskgit", metric="gflop"),
    ),
)
_REUSE = Row(
    name="enat-reuse",
    paper="ENAT",
    claim="Reusing features costs little",
    reported="FID 4.97 with, 4.78 without",
    task="digits",
    steps="8",
    budget=WHOLE + "; little is a tenth",
    chooses=GENERATED,
    commands=generators(_ENAT, 8),
    statements=(
        Statement(ours="enat-T8: maskgit", theirs="enat-anew-T8: maskgit", allowed=0.1),
        Statement(ours="enat-T8: maskgit", theirs="enat-anew-T8: maskgit", metric="gflop"),
    ),
    seeds=SIX,
    attempts=2,  # the first, three trainings of 600 updates, left it open
)
_COTRAINING = Row(
    name="co-training",
    paper="natgym",
    claim="Generator and policy that learn together beat the policy on a frozen generator",
    reported="the papers freeze the generator",
    task="digits",
    steps="4",
    budget="30 updates of 512 images from maskgit, 10 of the generator after each",
    chooses="train and select choose the policy of the frozen generator, by 8,000 images more, where the "
    "other two keep their last; report judges, 2,000 images for each of 2 seeds",
    commands=(
        learned(
            "together",
            "--steps 4 --updates 30 --trajectories 512 --cotraining.updates 10 --search.budget 12000",
            "--cotraining.updates 1",
        ),
    ),
    statements=(
        Statement(ours="together: co-trained adanat", theirs="together: adanat"),
        Statement(ours="together: co-trained adanat", theirs="together: fine-tuned adanat"),
    ),
)

ROWS = (_ATTENTION, _COMPUTE, _BLOCKS, _REUSE, _COTRAINING)
