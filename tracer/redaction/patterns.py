# SPDX-License-Identifier: Apache-2.0
"""Patterns of secrets: by the name before a value, by the text around it, and by the shape of the value.

A reference to a secret is not a secret: ``$PASSWORD``, ``/run/secrets/token``, ``true``.

A container chooses its command lines, so every expression must take linear time: an unbounded repetition is followed by
nothing that can fail, or cannot begin again within its own match.
"""

import re

REDACTED = "[redacted]"
_NAME_LEN = 64
"""Characters at the end of a name that are searched."""

_NOUN = r"""(?:
    (?P<password> pass(?:word|wd|phrase|code) | passin | passout
      | (?:(?<![a-z])|db|root|user|admin|key|store|trust|require|smtp|ldap|proxy|http|vault|bind|become)pass)
  | (?P<auth> (?<![a-z])(?:auth|masterauth))
  | (?P<other> secret | token | (?:(?<![a-z])|db|root|user|admin|mysql)pwd | credentials? | secret[-_]?key[-_]?base
      | (?:api|access|private|secret|account|encryption|master|signing|shared|auth)[-_.]?key | access[-_]?key[-_]?id
      | oauth2-bearer)
  )(?:[-_.]?[0-9]{1,2})?"""
_KINDS = ("password", "auth", "other")
"""A password may have any form, also that of a path; auth may be the name of a method."""
# A value ends at a space, a quote, or a separator before the next pair of a list (`password=x;user=y`).
_VALUE = r"""(?:[^\s"'`,;&]|[,;&](?![\w.\ -]{1,32}=|\s|["'`]|\Z))+"""
_QUOTED = r"""(?P<quote>\\?["'])(?:(?!(?P=quote))(?:\\.|.))*"""
_TEXT = re.compile(
    rf"""
    -----begin\ [a-z ]{{0,32}}private\ key[a-z ]{{0,16}}-----(?P<pem>.*?)(?:-----end|\Z)
  | ://[^\s/?\#:@"'<>]*:(?P<userinfo>[^\s/?\#"'<>]+)@
  | jdbc:oracle:[a-z0-9]{{1,8}}:[^\s/@"']{{0,64}}/(?P<thin>[^\s/@"']{{1,64}})@
  | authorization["'\\]{{0,3}}[ \t]{{0,4}}[:=][\s"'\\]{{0,8}}
      (?: (?:bearer|basic|token|bot|apikey|negotiate|ntlm)[\s\\]{{1,4}}(?P<credentials>[^\s"',;]+)
        | (?P<authorization>[^"'\r\n]+))
  | (?<![a-z])bearer\s{{1,4}}(?P<bearer>[\w.~+/=-]{{16,}})
  | {_NOUN}(?:\\{{0,3}}["'])?\]?(?:[ \t]{{1,4}}=[=>]?[ \t]{{1,4}}|=|:(?=[ \t"'\\])[ \t]{{0,4}})(?!\[redacted\])
      (?P<value>{_QUOTED}|{_VALUE})
  | [?&](?:sig|signature|x-amz-signature)=(?P<signature>[^&\s"'#]+)
""",
    re.VERBOSE | re.DOTALL,
)
_SHAPE = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        A[KS]IA[0-9A-Z]{16}(?![0-9A-Z])
      | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,} | glpat-[\w-]{20,}
      | xox[abeoprs]-[A-Za-z0-9-]{8,}
      | (?<![-_])eyJ[A-Za-z0-9_-]{5,}\.eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*
      | sk-(?:proj-|ant-[a-z0-9]{1,8}-)?[A-Za-z0-9_]{20,} | [rs]k_(?:live|test)_[A-Za-z0-9]{16,}
      | AIza[\w-]{35} | npm_[A-Za-z0-9]{36} | hf_[A-Za-z0-9]{30,} | hvs\.[\w-]{20,})
""",
    re.VERBOSE,
)
_SHORTEST_SHAPE = 13
_HINTS = ("pass", "pwd", "secret", "token", "key", "credential", "auth", "://", "bearer", "jdbc:", "sig")
"""Every match of _TEXT contains one of these; most arguments contain none."""
_NAME = re.compile(_NOUN + r"\Z", re.VERBOSE)
_ENDS = ("pass", "word", "wd", "phrase", "code", "passin", "passout", "auth", "token", "secret", "credential",
         "credentials", "key", "base", "id", "bearer")  # fmt: skip
_HARMLESS = re.compile(
    r"""(?: (?i:true|false|yes|no|on|off|null|none|nil)? | [0-9] | \*+ | [xX]{3,} | \[redacted\]
      | <[^>]*> | \$\{[^}]*\}? | \$\([^)]*\)? | \$(?:[A-Z_][A-Z0-9_]*|[0-9@*\#?!$-])? | %[A-Z_]+% | \{\{.* | `.*
      )\Z""",
    re.VERBOSE | re.DOTALL,
)
_PATH = re.compile(
    r"(?:file:|(?:~|\.{1,2})?/(?:(?:etc|var|run|usr|opt|home|root|srv|tmp|mnt|data|app|proc|dev|secrets?|certs?|config)"
    r"(?:/|\Z))|~/|\.{1,2}/|(?:id|type|source|src)=)|[\w./-]{1,256}\.(?:pem|key|json|txt|ya?ml|crt|conf)\Z"
)
_METHOD = re.compile(
    r"(?:basic|digest|md5|trust|peer|ident|scram(?:-sha)?-?\w*|ldap|oidc|jwt|token|bearer|oauth2?|xoauth2|plain|login|"
    r"cram-md5|ntlm|negotiate|kerberos|gssapi|pam|rbac|node|webhook|native|internal|external|ip|m?tls|ssl|key|"
    r"password|required?|optional|anonymous|any|all|auto|default)\Z",
    re.IGNORECASE,
)
_AWS_KEY = re.compile(r"(?<![A-Za-z0-9])A[KS]IA[0-9A-Z]{16}")
_AWS_SECRET = re.compile(
    r"(?<![\w/+])(?=[^A-Z]{0,39}[A-Z])(?=[^a-z]{0,39}[a-z])(?=[^0-9]{0,39}[0-9])[A-Za-z0-9/+]{40}(?![\w/+=])"
)


def secret_kind(name: str) -> str | None:
    """The kind of secret that a name implies: one of _KINDS, or None."""
    name = name[-_NAME_LEN:].lower()
    if not name.rstrip("0123456789-_.").endswith(_ENDS):
        return None
    found = _NAME.search(name)
    return found.lastgroup if found else None


def redact_value(value: str, kind: str | None) -> str:
    """Redact a value, except its quotes; a reference, a switch or a method is returned unchanged."""
    quote = value[:1] if value[:1] in ('"', "'") else ""
    start = len(quote)
    end = len(value) - (1 if quote and len(value) > 1 and value.endswith(quote) else 0)
    bare = value[start:end]
    if _HARMLESS.match(bare):
        return value
    if kind == "password" and bare.startswith(("pass:", "env:", "file:", "fd:")):  # openssl's -passin
        return value[:start] + ("pass:" + REDACTED if bare.startswith("pass:") else bare) + value[end:]
    if kind in ("auth", "other") and _PATH.match(bare):
        return value
    if kind == "auth" and _METHOD.match(bare):
        return value
    return value[:start] + REDACTED + value[end:]


def redact_text(text: str) -> str:
    """Redact everything that is a secret by its context or shape."""
    if len(text) >= _SHORTEST_SHAPE:
        text = _SHAPE.sub(REDACTED, text)
    lowered = text.lower()
    if len(lowered) != len(text):  # only İ becomes longer in lower case
        lowered = text.replace("\u0130", "i").lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    parts, done = [], 0
    for match in _TEXT.finditer(lowered):
        start, end = match.span(match.lastgroup or 0)
        kind = next((kind for kind in _KINDS if match[kind]), None)
        start += 2 * (match.lastgroup == "value" and text[start] == "\\")  # skip an escaped quote: JSON in a string
        parts += [text[done:start], redact_value(text[start:end], kind)]
        done = end
    return "".join(parts) + text[done:]


def has_aws_key(text: str) -> bool:
    """Whether the text has the id of an AWS access key.  Its secret, 40 plain characters, is then likely nearby."""
    return _AWS_KEY.search(text) is not None


def redact_aws_secrets(cmdline: list[str]) -> list[str]:
    """Redact everything that looks like an AWS secret key."""
    return [_AWS_SECRET.sub(REDACTED, argument) for argument in cmdline]
