"""Claims of MM-GCD, and what natgym asks of it: a weak or missing modality, the number of categories."""

from __future__ import annotations

from dataclasses import replace

from _claim_terms import Command, Row, Statement

from natgym.discovery.config import SHARES

_EMOJI = (
    "mmgcd_discover.py --data emoji --label-column group --exclude subgroup=country-flag --min-members 12 "
)
_EMOJI += "--splits {seeds} --settings simgcd-image:learning_rate=1e-3"
_TOY_PAIRS = "--data digits --exclude --min-members 2 --epochs 1 --simclr.updates 2"
_PAIRED = Row(
    name="mmgcd-modalities",
    paper="MM-GCD",
    claim="Both modalities beat each single one on all, old and new categories",
    reported="6.8 % on Food101 and 3.4 % on N24News more than one modality",
    task="emoji, 8 groups, 1,394 pairs",
    steps="-",
    budget="8 splits, the page's settings, chosen on splits 100 to 103; one training of the image encoder",
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
    seeds=tuple(range(8)),
)
_LOSSES = replace(
    _PAIRED,
    name="mmgcd-losses",
    paper="MM-GCD",
    claim="The alignment of features, that of outputs and the fusion each help",
    reported="alignment improves the discovery of new categories",
    statements=tuple(
        Statement(ours="groups: mm-gcd", theirs=f"groups: {other}", metric="all")
        for other in ("mm-gcd-no-output", "mm-gcd-no-feature", "mm-gcd, image branch", "mm-gcd, text branch")
    ),
)
_WEAK = replace(
    _PAIRED,
    name="mmgcd-weak",
    paper="natgym",
    claim="Both modalities beat the better one where the other is much weaker",
    reported="not asked",
    task=_PAIRED.task + "; texts by a sentence encoder, far ahead of the images",
    budget="as the row of modalities",
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
)
_HIDDEN = {"half-texts": "--hide-texts 0.5", "half-images": "--hide-images 0.5"}
_MISSING = replace(
    _PAIRED,
    name="mmgcd-missing",
    paper="natgym",
    claim="Half of a modality beside the whole other one beats the other one alone",
    reported="not asked",
    budget="as the row of modalities; which half is hidden follows from the number of samples",
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
)
_SUBGROUPS = _EMOJI.replace("--label-column group", "--label-column subgroup")
_COUNTED = {"groups": _EMOJI, "subgroups": _SUBGROUPS}
_NUMBER = replace(
    _PAIRED,
    name="mmgcd-number",
    paper="natgym",
    claim="The share of labelled samples tells the number of categories better than agreement with labels",
    reported="GCD takes the number that agrees best",
    task="emoji, 8 groups of 1,394 pairs, and 51 subgroups of 1,100",
    budget="k-means alone; size and quartile of neighborhoods were chosen on groups, splits 100 to 103",
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
)

ROWS = (_PAIRED, _LOSSES, _WEAK, _MISSING, _NUMBER)
