"""The chart of torch_step.py: bars of the time of a step, a group for each number of threads."""

from html import escape

WIDTH, LABELS, RIGHT = 760, 170, 190
BAR, GAP, HEAD, GROUP = 18, 6, 56, 34
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f }
    .title { font-weight: 600; font-size: 15px }
    .small { fill: #57606a; font-size: 12px }
    .ours { fill: #1a7f37 }
    .peer { fill: #8c959f }
    .page { fill: #ffffff }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .small { fill: #9198a1 }
        .ours { fill: #3fb950 }
        .peer { fill: #6e7681 }
        .page { fill: #0d1117 }
    }"""


def svg(title, groups, notes):
    """A picture of `groups`: a name, and rows of (name, seconds, ratio to ours, whether ours)."""
    longest = max(seconds for _, rows in groups for _, seconds, _, _ in rows)
    scale = (WIDTH - LABELS - RIGHT) / longest
    parts = [f'<text class="title" x="16" y="28">{escape(title)}</text>']
    y = HEAD
    for name, rows in groups:
        parts.append(f'<text class="small" x="16" y="{y + 10}">{escape(name)}</text>')
        y += GROUP - BAR
        for label, seconds, ratio, ours in rows:
            middle, length = y + BAR - 5, max(seconds * scale, 1)
            kind = "ours" if ours else "peer"
            value = f"{seconds * 1e3:.1f} ms" + ("" if ratio is None else f", {ratio:.2f} times ours")
            parts += [
                f'<text x="{LABELS - 10}" y="{middle}" text-anchor="end">{escape(label)}</text>',
                f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}"/>',
                f'<text x="{LABELS + length + 8:.1f}" y="{middle}">{escape(value)}</text>',
            ]
            y += BAR + GAP
        y += GROUP - BAR
    for line in notes:
        parts.append(f'<text class="small" x="16" y="{y + 4}">{escape(line)}</text>')
        y += 18
    height = y + 4
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n'
        f"  <title>{escape(title)}</title>\n  <style>{STYLE}\n  </style>\n"
        f'  <rect class="page" width="{WIDTH}" height="{height}"/>\n{body}\n</svg>\n'
    )
