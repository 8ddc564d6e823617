"""What lies in a page that the library writes."""

import json
import re


def data_of(html):
    """The data that the script of a page reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
