"""python -m ddpm_course.doctor CHECKPOINT: examine what `save_checkpoint` wrote, with images that it was trained on."""

import argparse
import sys

from ..data import load_images
from ..training.checkpoints import PRETRAINED, load_checkpoint, load_pretrained
from .examination import examine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ddpm_course.doctor", description="Examine a trained network.")
    parser.add_argument("checkpoint", help=f"a file of save_checkpoint, or {' or '.join(PRETRAINED)} for those here")
    parser.add_argument("--data", help="what load_images takes: the images it was trained on; bundled unless given")
    parser.add_argument("--size", type=int, help="resize and crop the images to this")
    parser.add_argument("--all", action="store_true", help="print every finding, the sound ones too")
    args = parser.parse_args()
    here = args.checkpoint in PRETRAINED
    try:
        net, diffusion, about = load_pretrained(name=args.checkpoint) if here else load_checkpoint(args.checkpoint)
        images, labels = load_images(args.data or (about["data"] if here else "bundled"), size=args.size)
        examination = examine(net, diffusion, images, labels if net.num_classes is not None else None)
    except (ValueError, OSError) as problem:  # what it says is meant for the reader; ConnectionError is one too
        print(problem, file=sys.stderr)
        return 2
    print(examination)
    if args.all:
        print(f"\n{examination.table()}")
    return 0 if examination.sound else 1


if __name__ == "__main__":
    sys.exit(main())
