"""Claims of AutoNAT, AdaNAT and AdaGen: searched and learned ways to decode."""

from __future__ import annotations

from _claim_parts import GENERATED, SEARCHED, SIX, SPLITS, TOY_JUDGED, WHOLE, generators, learned, search
from _claim_terms import Command, Row, Statement

REWARDED = ("adversarial", "mmd", "classifier", "distance")

_STRATEGIES = tuple(
    Row(
        name=f"autonat-generation-T{steps}",
        paper="AutoNAT",
        claim=f"A searched generation strategy beats hand-made ones, T = {steps}",
        reported=reported,
        task="digits",
        steps=str(steps),
        budget="40,000 images a search, 100 an evaluation",
        chooses=SEARCHED,
        commands=(search(f"searched-T{steps}", steps, 40_000, 100),),
        statements=tuple(
            Statement(ours=f"searched-T{steps}: cma", theirs=f"searched-T{steps}: {hand_made}")
            for hand_made in ("reference", "maskgit")
        ),
        attempts=attempts,
    )
    for steps, reported, attempts in (  # the first attempt, 12,000 images, beat the reference alone
        (4, "no figure at hand", 2),
        (8, "FID 2.68", 1),
        (12, "no figure at hand", 1),
    )
)
_OPTIMIZER = Row(
    name="autonat-optimizer",
    paper="AutoNAT",
    claim="Finite differences find the strategy; here, CMA-ES finds a nearer one for a third of the images",
    reported="31 evaluations of 50,000 images for each of up to 100 updates",
    task="digits",
    steps="4",
    budget="36,000 images a search, 300 an evaluation, and 12,000, 100 an evaluation",
    chooses=SEARCHED,
    commands=(search("whole", 4, 36_000, 300, "paper cma"), search("third", 4, 12_000, 100)),
    statements=(
        Statement(ours="whole: paper", theirs="whole: reference"),
        Statement(ours="whole: cma", theirs="whole: paper"),
        Statement(ours="third: cma", theirs="whole: paper"),
    ),
)
_LAWS = {
    "nat": "",
    "nat-beta": "--mask-law.name beta --mask-law.a 12 --mask-law.b 3",
    "nat-found": "--mask-law.name gaussian --mask-law.a 0.327 --mask-law.b 0.292",
}
_TRAINING = Row(
    name="autonat-training",
    paper="AutoNAT",
    claim="A searched law of training masks gives more than the usual ones",
    reported="Beta(12, 3), found with the small model, does consistently well for all",
    task="digits",
    steps="4",
    budget=WHOLE + "; the found law is that of the page on searches, gaussian(0.327, 0.292)",
    chooses=GENERATED,
    commands=generators(_LAWS, 4),
    statements=(
        Statement(ours="nat-found-T4: maskgit", theirs="nat-T4: maskgit"),
        Statement(ours="nat-found-T4: maskgit", theirs="nat-beta-T4: maskgit"),
    ),
    seeds=SIX,
    attempts=2,  # the first, three trainings of 600 updates, left it open
)
_LEARNED = {
    steps: learned(f"learned-T{steps}", f"--steps {steps} --updates 40 --trajectories 512")
    for steps in (2, 4)
}
_TRAINED = "40 updates of 512 images from maskgit for each policy, and a search of as many images"
_ORDER = Row(
    name="adanat-order",
    paper="AdaNAT",
    claim="A learned adaptive policy beats a learned static one, and that beats the hand-made",
    reported="FID 4.54, 5.40 and 7.65 at T = 4",
    task="digits",
    steps="4",
    budget=_TRAINED,
    chooses=SPLITS,
    commands=(_LEARNED[4],),
    statements=(
        Statement(ours="learned-T4: adanat", theirs="learned-T4: step-only"),
        Statement(ours="learned-T4: adanat", theirs="learned-T4: static-search"),
        Statement(ours="learned-T4: step-only", theirs="learned-T4: maskgit"),
    ),
)
_STEPS = Row(
    name="adanat-steps",
    paper="AdaNAT",
    claim="A step-only policy loses part of the gain; the more steps, the smaller the gain",
    reported="FID 5.40 against 4.54 without seeing; 4.54 at T = 4, 3.71 at T = 8",
    task="digits",
    steps="2, 4",
    budget=_TRAINED,
    chooses=SPLITS,
    commands=(_LEARNED[2], _LEARNED[4]),
    statements=(
        Statement(ours="learned-T2: adanat", theirs="learned-T2: step-only"),
        Statement(
            ours=("learned-T2: adanat", "learned-T2: maskgit"),
            theirs=("learned-T4: adanat", "learned-T4: maskgit"),
        ),
    ),
)


_REWARDED = "--steps 2 --updates 40 --trajectories 512 --no-step-only --finalists 1 --search.budget 4000 "
_REWARDED += "--images 500 --evaluation-seeds 0"
_LAST = " ".join(f"{{runs}}/rewarded-{reward}-{{seed}}/last" for reward in REWARDED)
_REWARDS = Row(
    name="adanat-rewards",
    paper="AdaNAT",
    claim="The distance as reward collapses, a pre-trained reward loses diversity, an adversarial keeps both",
    reported="FID 55.4 with the FID as reward; poor diversity with ImageReward",
    task="digits",
    steps="2",
    budget="40 updates of 512 images from maskgit; the last policy is judged, as nothing chooses it",
    chooses=GENERATED,
    commands=(
        *(
            learned(
                f"rewarded-{reward}", f"{_REWARDED} --reward {reward}", "--discriminator-batch 32 --warmup 1"
            )
            for reward in REWARDED
        ),
        Command(
            name="last",
            line=f"evaluate.py --task digits --policy {_LAST} maskgit --steps 2 --images 2000 --seeds 0 1 "
            "--threads 1",
            toy=TOY_JUDGED,
        ),
    ),
    statements=(
        Statement(ours="last: maskgit", theirs="last: rewarded-distance/last"),
        Statement(ours="last: maskgit", theirs="last: rewarded-classifier/last", metric="recall"),
        Statement(
            ours="last: rewarded-adversarial/last", theirs="last: rewarded-classifier/last", metric="recall"
        ),
        Statement(ours="last: rewarded-adversarial/last", theirs="last: rewarded-classifier/last"),
        Statement(ours="last: rewarded-adversarial/last", theirs="last: maskgit"),
    ),
    shows=tuple((reward, f"last-0/figures/samples-*rewarded-{reward}-0-last-T2.png") for reward in REWARDED),
)
_SMOOTHED = {"plain": 0, "smoothed": 0.8}
_SIXTEEN = "--steps 16 --updates 20 --trajectories 256 --no-step-only --search.budget 4000"
_SMOOTHING = Row(
    name="adagen-smoothing",
    paper="AdaGen",
    claim="Smoothed actions help at T = 16 and more",
    reported="FID 3.36 with a share of 0.8, 3.97 without",
    task="digits",
    steps="16",
    budget="20 updates of 256 images from maskgit for each policy",
    chooses=SPLITS,
    commands=tuple(learned(name, f"{_SIXTEEN} --smoothing {share}") for name, share in _SMOOTHED.items()),
    statements=(Statement(ours="smoothed: adanat", theirs="plain: adanat"),),
)

ROWS = (*_STRATEGIES, _OPTIMIZER, _TRAINING, _ORDER, _STEPS, _REWARDS, _SMOOTHING)
