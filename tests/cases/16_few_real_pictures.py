"""A folder of 40 pictures has 4 in its select part: the error must say so, before the training and not as kthvalue() after it."""
import os, sys
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import torch
from generators.conditions import Labels
from generators.data import Split
from natgym.evaluation.scorer import Scorer
from natgym.metrics.classifier import Classifier, ClassifierConfig
net = Classifier(ClassifierConfig(image_shape=(1, 8, 8), num_classes=2, features=4)).eval()
said = []
for count in (2, 4, 5):
    try:
        judge = Scorer(net, Split(torch.rand(count, 1, 8, 8), Labels(torch.arange(count) % 2, 2)))
        judge.score(torch.rand(50, 1, 8, 8), Labels(torch.arange(50) % 2, 2))
        said.append("fine")
    except ValueError as error:
        said.append(f"ValueError: {error}")
    except RuntimeError as error:
        said.append(f"RuntimeError: {error}")
print("2, 4, 5 real pictures:", "; ".join(said))
sys.exit(1 if any("kthvalue" in text for text in said) else 0)
