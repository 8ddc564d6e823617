"""Renders a scene to track: walkers who cross and hide each other before one camera.

    python examples/tracking/render_scene.py scene --seed=0

It writes scene/frames/000001.jpg and so on, scene/det.txt with the boxes of a detector (noisy, some missing, some of
nobody), and scene/gt.txt with the true tracks. Both have MOTChallenge's format. The seed decides everything.
"""

import argparse
import sys

from scene import write_scene

from mancs_jax.common.local_path import local_path


def main() -> None:
    """Writes the scene and prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=300, help="ten are a second")
    parser.add_argument("--people", type=int, default=20, help="walkers who come by")
    arguments = parser.parse_args()
    try:
        write_scene(local_path(arguments.folder), arguments.seed, arguments.frames, arguments.people)
    except (ValueError, OSError) as error:
        sys.exit(f"render_scene: {error}")
    print(f"{arguments.folder}: {arguments.frames} frames, det.txt, gt.txt")


if __name__ == "__main__":
    main()
