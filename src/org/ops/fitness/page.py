"""What the pages here have in common: a frame, and how things look by day and by night. Pure."""

from __future__ import annotations

from html import escape

_STYLE = """
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--ink:#1c2330;--soft:#5b6575;--rule:#e2e6ec;
--good:#12805c;--bad:#c23b3b;--odd:#9a6700;--line:#2f5fd0;--other:#8a94a6}
@media (prefers-color-scheme:dark){:root{--back:#10141b;--card:#181e28;--ink:#e7ebf2;--soft:#9aa6b8;
--rule:#2a3342;--good:#3fbf8f;--bad:#f0787a;--odd:#e0b04a;--line:#7ea6ff;--other:#7d889b}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:28px 18px 48px}
header{margin-bottom:22px}
h1{font-size:24px;margin:8px 0 4px;overflow-wrap:anywhere}
h2{font-size:15px;margin:0 0 12px}h2 small{color:var(--soft);font-weight:400}
header p{margin:0;color:var(--soft);overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px 18px;
margin:0 0 16px}
header .badge{display:inline-block;padding:2px 12px;border-radius:99px;font-weight:600;color:#fff}
.badge.pass{background:#12805c}.badge.fail{background:#b93434}.badge.inconclusive{background:#8a5d00}
.gates{list-style:none;margin:0;padding:0;display:grid;gap:7px}
.gates li{display:grid;grid-template-columns:20px 72px 1fr;gap:8px;overflow-wrap:anywhere}
.gates .pass .sign{color:var(--good)}.gates .fail .sign,.gates .fail span{color:var(--bad)}
.gates span{color:var(--soft)}
figure{margin:0}svg{display:block;width:100%;height:auto}
.path-of{min-width:560px}
svg text{font-size:12px;fill:var(--soft)}svg .value{fill:var(--ink);font-weight:600}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}
.rule{stroke:var(--rule)}.zero{stroke:var(--other)}
.margin{stroke:var(--odd);stroke-dasharray:4 4}svg .margin-word{fill:var(--odd)}
.bar{opacity:.22}.bar.pass{fill:var(--good)}.bar.fail{fill:var(--bad)}.bar.pale{opacity:.07}
.edge{stroke-width:2.5}.edge.pass{stroke:var(--good)}.edge.fail{stroke:var(--bad)}.edge.pale{opacity:.35}
.haze{fill:var(--line);opacity:.14}.end{fill:var(--line);stroke:var(--card);stroke-width:2}
.path{fill:none;stroke:var(--line);stroke-width:2.2;stroke-linejoin:round}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0}
.key span::before{content:"";display:inline-block;width:14px;height:3px;margin-right:6px;
vertical-align:middle}
.key .k-line::before{background:var(--line)}.key .k-pass::before{background:var(--good)}
.key .k-fail::before{background:var(--bad)}.key span:last-child::before{display:none}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:22px}
.dot{opacity:.55}.dot.current{fill:var(--other)}.dot.candidate{fill:var(--line)}
.median{stroke:var(--ink);stroke-width:2}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:500;border-bottom:1px solid var(--rule);padding:4px 8px}
td{padding:3px 8px;border-bottom:1px solid var(--rule);vertical-align:top}
tr:last-child td{border-bottom:0}
.n{text-align:right;white-space:nowrap}td small{display:block;color:var(--bad);overflow-wrap:anywhere}
.better .d{color:var(--good);font-weight:600}.worse .d{color:var(--bad);font-weight:600}
.lost td{color:var(--soft)}.faint{color:var(--soft)}.first{color:var(--soft);margin-right:5px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0;font-size:13.5px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13.5px/1.5 ui-monospace,monospace}
blockquote{margin:6px 0 0;padding-left:12px;border-left:3px solid var(--rule);white-space:pre-wrap;
overflow-wrap:anywhere}
@media (max-width:520px){.gates li{grid-template-columns:20px 1fr;row-gap:0}
.gates li span:last-child{grid-column:2}
dl{grid-template-columns:1fr}dd{margin-bottom:6px}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def whole(title: str, body: str) -> str:
    """A page of this body, which is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
