"""The table of programs for accelerators, from docs/results/accelerators/."""

import json

from result_files import RESULTS, markdown

ORDER = ("h100_1", "h100_8", "t4_accumulate", "v5e_1")


def accelerators() -> str:
    """docs/scaling.md: what the makers' compilers say of the paper's step and of the embedding."""
    lines = []
    for name in ORDER:
        about = json.loads((RESULTS / "accelerators" / f"{name}.json").read_text())
        step, embedding = about["step"], about["embedding"]
        held = step["arguments"] + step["results"] - step["donated"] + step["temporaries"]
        options = ", ".join([about["dtype"], *(f"`{option}`" for option in about["set"])])
        # A loop's body is counted once, so its bytes and operations are not those of a step.
        counted = ["", "", ""] if step["loops"] else [f"{step['flops'] / 1e12:.2f}", f"{step['moved'] / 1e9:.1f}"]
        if not step["loops"]:
            counted.append(f"{1e3 * bound(about, 'step'):.1f}")
        lines.append(
            (
                f"{about['devices']} x {about['chip']}",
                options,
                f"{held / 1e9:.2f} of {about['memory'] / 1e9:.0f}",
                f"{step['temporaries'] / 1e9:.2f}",
                *counted,
                f"{embedding['moved'] / 1e9:.1f}",
                f"{1e3 * bound(about, 'embedding'):.1f}",
            )
        )
    step = ["step: GB held", "temporaries, GB", "TFLOP", "GB moved", "bound, ms"]
    return markdown(["device", "dtype, options", *step, "embedding: GB moved", "bound, ms"], lines)


def bound(about: dict, program: str) -> float:
    """Seconds of the slower of memory and arithmetic, by the data sheet."""
    counts = about[program]
    return max(counts["moved"] / about["bandwidth"], counts["flops"] / about["peak_flops"])
