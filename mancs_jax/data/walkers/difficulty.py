"""The difficulties of walkers: 0 switches a difficulty off.

Only PATTERN_RATE works the other way: it makes people easier to tell apart.
"""

CAST_STRENGTH = 0.25  # exponent on every camera's cast and saturation; at 1, as in CAMERAS, histograms fail
LIGHT_STRENGTH = 0.25  # exponent on every camera's gain and gamma, factor on its haze
LIGHT_JITTER = 0.10  # sd of the log gain from picture to picture
TINT_JITTER = 0.03  # sd of the log gain of each colour channel from picture to picture
HEADING_JITTER = 0.45  # radians, sd of the walking direction around a camera's path
BOX_SHIFT = 0.045  # sd of a detected box's offset, as a share of its size
BOX_SCALE = 0.07  # sd of the log size of a detected box
CUT_RATE = 0.10  # share of detected boxes that lose the feet or the head
OCCLUSION_RATE = 0.16  # share of pictures with a pole, bench, bicycle or wall in front of the person
COMPANY_RATE = 0.12  # share of pictures with a part of another person in the box
NOISE_STRENGTH = 0.7  # factor on every camera's sensor noise
DETAIL_STRENGTH = 1.0  # exponent on every camera's loss of resolution
PATTERN_RATE = 0.62  # share of tops that carry a pattern: what tells people apart where colour fails
