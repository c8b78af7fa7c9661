"""Real pictures are 90 % of one class (a long-tailed folder). A perfect generator, judged under either law of conditions that evaluate.py has
(balanced, random = uniform), must not look far away without a word: there is no law that follows the data.
"""
import os, sys, warnings
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
from typing import get_args
import torch
from generators.data import Split, load_split
from natgym.evaluation.scorer import Scorer
from natgym.task import Task
from natgym.evaluation.protocol import ConditionLaw
net, train = Task.load("digits").score_extractor, load_split("digits", "train")
labels = train.condition.values
def draw(shares, n, seed):
    g = torch.Generator().manual_seed(seed)
    rows = []
    for c, share in enumerate(shares):
        own = (labels == c).nonzero()[:, 0]; own = own[::2] if seed else own[1::2]  # disjoint halves
        rows.append(own[torch.randint(len(own), (round(share * n),), generator=g)])
    rows = torch.cat(rows); return Split(train.images_NCHW[rows], train.condition[rows])
tail = [0.9] + [0.1 / 9] * 9
judge = Scorer(net, draw(tail, 500, 0))
like, even = (judge.distance(draw(s, 2000, 1).images_NCHW) for s in (tail, [0.1] * 10))
print(f"real pictures drawn by the data's own shares: {like:.2f}; the same real pictures with balanced classes: {even:.2f}; laws offered: {', '.join(get_args(ConditionLaw))}")
sys.exit(0 if len(get_args(ConditionLaw)) > 2 else 1)
