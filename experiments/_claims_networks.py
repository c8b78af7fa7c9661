"""Claims of ENAT and MM-GCD, and what natgym asks itself: co-training, the order of tokens."""

from __future__ import annotations

from _claim_parts import GENERATED, LOCAL, SHORT, SPLITS, TOY_JUDGED, TOY_TRAINING, generators, learned
from _claim_terms import Command, Row, Statement

from natgym.discovery.config import SHARES

_CUTS = {"nat": "", "nat-blind-visible": "--cut visible-masked", "nat-blind-masked": "--cut masked-visible"}
_ATTENTION = Row(
    name="enat-attention",
    paper="ENAT",
    claim="Cutting attention from visible to mask tokens costs next to nothing, from mask to visible ruins",
    reported="FID 6.54 whole, 6.76 and 201.88",
    task="digits",
    steps="8",
    budget=SHORT + "; next to nothing is a tenth, ruined is twice the distance",
    chooses=GENERATED,
    commands=generators(_CUTS, 8),
    statements=(
        Statement(ours="nat-blind-visible-T8: maskgit", theirs="nat-T8: maskgit", allowed=0.1),
        Statement(ours="nat-T8: maskgit", theirs="nat-blind-masked-T8: maskgit", allowed=-0.5),
    ),
)
_ENAT = {"enat": "--model enat", "enat-anew": "--model enat --reuse 0"}
_COMPUTE = Row(
    name="enat-compute",
    paper="ENAT",
    claim="An encoder of visible tokens and a decoder of mask tokens is nearer, for fewer operations",
    reported="FID 4.97 for 22.6 GFLOP, 6.54 for 39.6",
    task="digits",
    steps="8",
    budget=SHORT,
    chooses=GENERATED,
    commands=generators({"nat": "", "enat": _ENAT["enat"]}, 8),
    statements=(
        Statement(ours="enat-T8: maskgit", theirs="nat-T8: maskgit"),
        Statement(ours="enat-T8: maskgit", theirs="nat-T8: maskgit", metric="gflop"),
    ),
)
_REUSE = Row(
    name="enat-reuse",
    paper="ENAT",
    claim="Reusing features costs little",
    reported="FID 4.97 with, 4.78 without",
    task="digits",
    steps="8",
    budget=SHORT + "; little is a tenth",
    chooses=GENERATED,
    commands=generators(_ENAT, 8),
    statements=(
        Statement(ours="enat-T8: maskgit", theirs="enat-anew-T8: maskgit", allowed=0.1),
        Statement(ours="enat-T8: maskgit", theirs="enat-anew-T8: maskgit", metric="gflop"),
    ),
)
_COTRAINING = Row(
    name="co-training",
    paper="natgym",
    claim="Generator and policy that learn together beat the policy on a frozen generator",
    reported="the papers freeze the generator",
    task="digits",
    steps="4",
    budget="30 updates of 512 images from maskgit, 10 of the generator after each",
    chooses=SPLITS,
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
_EMOJI = (
    "mmgcd_discover.py --data emoji --label-column group --exclude subgroup=country-flag --min-members 12 "
)
_EMOJI += "--splits {seeds} --settings simgcd-image:learning_rate=1e-3"
_TOY_PAIRS = "--data digits --exclude --min-members 2 --epochs 1 --simclr.updates 2"
_EIGHT = tuple(range(8))
_GROUPS = "8 splits, the page's settings, chosen on splits 100 to 103; one training of the image encoder"
_PAIRED = Row(
    name="mmgcd-modalities",
    paper="MM-GCD",
    claim="Both modalities beat each single one on all, old and new categories",
    reported="6.8 % on Food101 and 3.4 % on N24News more than one modality",
    task="emoji, 8 groups, 1,394 pairs",
    steps="-",
    budget=_GROUPS,
    chooses="nothing is chosen; unlabelled samples judge",
    commands=(
        Command(
            name="groups",
            line=f"{_EMOJI} --methods simgcd-image simgcd-text mm-gcd mm-gcd-no-feature mm-gcd-no-output "
            "mm-gcd-neither",
            toy=_TOY_PAIRS,
        ),
    ),
    statements=tuple(
        Statement(ours="groups: mm-gcd", theirs=f"groups: simgcd-{one}", metric=share)
        for one in ("image", "text")
        for share in SHARES
    ),
    seeds=_EIGHT,
)
_LOSSES = Row(
    name="mmgcd-losses",
    paper="MM-GCD",
    claim="The alignment of features, that of outputs and the fusion each help",
    reported="alignment improves the discovery of new categories",
    task=_PAIRED.task,
    steps="-",
    budget=_GROUPS,
    chooses=_PAIRED.chooses,
    commands=_PAIRED.commands,
    statements=tuple(
        Statement(ours="groups: mm-gcd", theirs=f"groups: {other}", metric="all")
        for other in ("mm-gcd-no-output", "mm-gcd-no-feature", "mm-gcd, image branch", "mm-gcd, text branch")
    ),
    seeds=_EIGHT,
)
_WEAK = Row(
    name="mmgcd-weak",
    paper="natgym",
    claim="Both modalities beat the better one where the other is much weaker",
    reported="not asked",
    task=_PAIRED.task + "; texts by a sentence encoder, far ahead of the images",
    steps="-",
    budget="as the row of modalities",
    chooses=_PAIRED.chooses,
    commands=(
        Command(
            name="strong-text",
            line=f"{_EMOJI} --text-encoder minilm --methods simgcd-text mm-gcd mm-gcd-reliability",
            toy=f"{_TOY_PAIRS} --text-encoder tfidf",
        ),
    ),
    statements=tuple(
        Statement(ours="strong-text: mm-gcd-reliability", theirs="strong-text: simgcd-text", metric=share)
        for share in SHARES
    ),
    seeds=_EIGHT,
)
_HIDDEN = {"half-texts": "--hide-texts 0.5", "half-images": "--hide-images 0.5"}
_MISSING = Row(
    name="mmgcd-missing",
    paper="natgym",
    claim="Half of a modality beside the whole other one beats the other one alone",
    reported="not asked",
    task=_PAIRED.task,
    steps="-",
    budget="as the row of modalities; which half is hidden follows from the number of samples",
    chooses=_PAIRED.chooses,
    commands=(
        *_PAIRED.commands,
        *(
            Command(name=name, line=f"{_EMOJI} {flag} --methods mm-gcd", toy=_TOY_PAIRS)
            for name, flag in _HIDDEN.items()
        ),
    ),
    statements=tuple(
        Statement(ours=f"{name}: mm-gcd", theirs=f"groups: simgcd-{whole}", metric="all")
        for name, whole in (("half-texts", "image"), ("half-images", "text"))
    ),
    seeds=_EIGHT,
)
_SUBGROUPS = _EMOJI.replace("--label-column group", "--label-column subgroup")
_COUNTED = {"groups": _EMOJI, "subgroups": _SUBGROUPS}
_NUMBER = Row(
    name="mmgcd-number",
    paper="natgym",
    claim="The share of labelled samples tells the number of categories better than agreement with labels",
    reported="GCD takes the number that agrees best",
    task="emoji, 8 groups of 1,394 pairs, and 51 subgroups of 1,100",
    steps="-",
    budget="k-means alone; size and quartile of neighborhoods were chosen on groups, splits 100 to 103",
    chooses=_PAIRED.chooses,
    commands=tuple(
        Command(
            name=f"{what}-{how}",
            line=f"{line} --methods k-means-joined --num-categories {how}",
            toy=_TOY_PAIRS + " --max-categories 8",
        )
        for what, line in _COUNTED.items()
        for how in ("auto", "agreement")
    ),
    statements=tuple(
        Statement(
            ours=f"{what}-auto: k-means-joined", theirs=f"{what}-agreement: k-means-joined", metric="off"
        )
        for what in _COUNTED
    ),
    seeds=_EIGHT,
)
_TOKENS = "--task sudoku-4 --steps 4 --schedule linear:sampling=.1,remask=0"
_PUZZLE = Row(
    name="token-order",
    paper="natgym",
    claim="A learned order of revealing solves more than the best of four fixed orders in as many passes",
    reported="not asked",
    task="sudoku-4, 3 cells given",
    steps="4",
    budget="200 updates of 512 puzzles",
    chooses="select chooses the kept policy (here train did); report judges, 2,000 puzzles for each of 3 seeds",
    commands=(
        Command(
            name="tokens",
            line=f"adanat_ppo.py {_TOKENS} --actions tokens --observation statistics --reward valid "
            "--objective valid --learning-rate 1e-3 --final-learning-rate None --trajectories 512 "
            "--minibatch 512 --epochs 2 --group 8 --baseline rloo --updates 200 --evaluate-every 20 "
            "--final-images 2000 --no-step-only --search.budget 4000 --images 2000 --evaluation-seeds 0 "
            f"--seed {{seed}} {LOCAL}",
            toy=TOY_TRAINING,
        ),
        Command(
            name="solved",
            line="evaluate.py --task sudoku-4 --policy {runs}/tokens-{seed} linear:sampling=.1,remask=0 "
            "linear:sampling=.1,remask=0,rule=margin linear:sampling=.1,remask=0,rule=entropy "
            "linear:sampling=.1,remask=0,rule=random --steps 4 --images 2000 --seeds 0 1 2 --threads 1",
            toy=TOY_JUDGED,
        ),
    ),
    statements=tuple(
        Statement(ours="solved: tokens", theirs=f"solved: linear:sampling=.1,remask=0{rule}", metric="valid")
        for rule in ("", ",rule=margin", ",rule=entropy", ",rule=random")
    ),
)

ROWS = (_ATTENTION, _COMPUTE, _REUSE, _COTRAINING, _PAIRED, _LOSSES, _WEAK, _MISSING, _NUMBER, _PUZZLE)
