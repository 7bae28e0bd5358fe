#!/usr/bin/env python3
"""Writes the man page and the completions from what the program says of itself: manual.py BINARY FOLDER.

`--help` of hsdo and of each command is their only source, so they know every flag, command and setting that the program
knows. `make manual` runs this; a test compares the result with the files beside it.
"""

import os
import re
import subprocess
import sys

BINARY, FOLDER = sys.argv[1:]


def help_of(*words):
    return subprocess.run([BINARY, *words, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout


class Flag:
    """A line such as `  -c, --client       what it does` or `      --for DURATION what it does`."""

    LINE = re.compile(r"^ {2}(?:(-\w), | {4})(--[a-z-]+)(?: ([A-Z]+))? +(\S.*)$")

    def __init__(self, found):
        self.short, self.long, self.value, self.text = found.groups()

    @classmethod
    def all_in(cls, text):
        return [cls(found) for found in map(cls.LINE.match, text.splitlines()) if found]


class Section:
    """What stands under a line that ends with a colon, up to an empty line."""

    def __init__(self, text, title):
        _, found, rest = text.partition(f"\n{title}")
        assert found, f"the help has no section {title!r}"
        self.text = rest.partition("\n\n")[0].partition("\n")[2]


HELP = help_of()
DESCRIPTION, USAGE = HELP.split("\n\n")[:2]
ROLES = Flag.all_in(Section(HELP, "roles").text)
FLAGS = Flag.all_in(Section(HELP, "flags").text)
# A variant of a command, such as `check --quick`, has a line too, but no name of its own.
COMMANDS = re.findall(r"^  ([a-z]+)((?: [A-Z.]+)?)  +(.*)$", Section(HELP, "commands for people").text, re.MULTILINE)
SETTINGS = re.findall(r"^  ([A-Z_]+) \((.*), default: (.*)\)\n {6}(.*)$", HELP, re.MULTILINE)
EXIT_CODES = HELP[HELP.index("exit codes: ") :].partition("\n\n")[0].removeprefix("exit codes: ").replace("\n", " ")
COMMAND_HELP = {name: help_of(name) for name, _, _ in COMMANDS}
assert ROLES and FLAGS and COMMANDS and SETTINGS
# What a target may begin with, for the commands that take one.
TARGETS = {
    name: re.findall(r"\b(slot|zone|group):", found.group(1))
    for name, text in COMMAND_HELP.items()
    if (found := re.search(r"^TARGET: (.*)$", text, re.MULTILINE))
}


# The man page


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\\&" + text if text.startswith((".", "'")) else text


def flag_entry(flag):
    names = ", ".join(rf"\fB{roff(name)}\fR" for name in (flag.short, flag.long) if name)
    value = rf" \fI{flag.value}\fR" if flag.value else ""
    return f".TP\n{names}{value}\n{roff(flag.text)}\n"


def synopsis(usage):
    lines = usage.removeprefix("usage: ").splitlines()
    return "".join(f"{roff(line.strip())}\n.br\n" for line in lines).removesuffix(".br\n")


def command_entry(name):
    """A command's help: its usage, its paragraphs, its flags."""
    usage, *paragraphs = COMMAND_HELP[name].rstrip("\n").split("\n\n")
    page = f".SS hsdo {name}\n{synopsis(usage)}"
    for paragraph in paragraphs:
        flags = Flag.all_in(paragraph)
        if flags:
            page += "".join(map(flag_entry, flags))
        else:
            words = re.sub(r"\n(?![A-Z]+: )", " ", paragraph)
            words = words.replace("exit codes:", "Exit codes:")
            page += "".join(f".PP\n{roff(line)}\n" for line in words.splitlines())
    return page


def man_page():
    name, description = "hsdo", DESCRIPTION.rstrip(".")
    title = description[0].lower() + description[1:]
    settings = "".join(
        f".TP\n\\fB{setting}\\fR (default: {roff(default)}; {scope})\n{roff(text)}\n" for setting, scope, default, text in SETTINGS
    )
    return f""".\\" From `hsdo --help`, by conf/package/manual.py.
.TH HSDO 1 "" "{name}" "User Commands"
.nh
.ad l
.SH NAME
{name} \\- {roff(title)}
.SH SYNOPSIS
{synopsis(USAGE)}.SH DESCRIPTION
{roff(DESCRIPTION)}
.PP
One process runs one role. The server role keeps the table in step with the groups or services; the client role keeps one
HAProxy in step with the table. What they do is shown by their log, by
.BR "hsdo status" ,
and on the exporter's port, EXPORTER_PORT.
.SH ROLES
{"".join(map(flag_entry, ROLES))}.SH FLAGS
{"".join(map(flag_entry, FLAGS))}.SH COMMANDS
{"".join(command_entry(name) for name, _, _ in COMMANDS)}.SH SETTINGS
Settings stand in the YAML file or in the environment, which takes precedence. An empty value counts as not set. The word
after the default is the role that reads it.
{settings}.SH ENVIRONMENT
The variables of AWS's and Consul's own tools are honoured too: see /usr/share/doc/hsdo.
.SH EXIT STATUS
{roff(EXIT_CODES)}
.SH FILES
.TP
.I /etc/hsdo/env.yaml
Settings of both roles, unless conf/env.yaml is in the working directory.
.TP
.I /etc/hsdo/hsdo.env
More settings for the systemd units, as KEY=value lines; systemd reads it as root.
.TP
.I /var/lib/hsdo/table.json
The last table that the client has read (CLIENT_STATE_FILE), by its systemd unit.
.SH SEE ALSO
.BR haproxy (1),
.BR systemctl (1)
"""


# The completions


def words_of(flags):
    return [name for flag in flags for name in (flag.short, flag.long) if name]


def bash():
    cases = ""
    for name, _, _ in COMMANDS:
        words = words_of(Flag.all_in(COMMAND_HELP[name])) + [f"{prefix}:" for prefix in TARGETS.get(name, [])]
        cases += f"        {name}) words='{' '.join(words)}' ;;\n"
    first = " ".join([name for name, _, _ in COMMANDS] + words_of(ROLES + FLAGS))
    rest = " ".join(words_of(ROLES + FLAGS))
    values = "|".join(sorted({flag.long for text in COMMAND_HELP.values() for flag in Flag.all_in(text) if flag.value} - {"--config"}))
    return f"""# Completion of hsdo for bash. From `hsdo --help`, by conf/package/manual.py.

_hsdo() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words
    COMPREPLY=()
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
        --config)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        {values}) return ;;
    esac
    case ${{COMP_WORDS[1]}} in
{cases}        -*) words='{rest}' ;;
        *) words='{first}' ;;
    esac
    if (( COMP_CWORD == 1 )); then
        words='{first}'
    fi
    # Bash breaks words at colons: what is before one is typed already.
    if (( COMP_CWORD > 1 )) && [[ $word == : || ${{COMP_WORDS[COMP_CWORD-1]}} == : ]]; then
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *: ]]; then
        compopt -o nospace 2>/dev/null
    fi
}}
complete -F _hsdo hsdo
"""


def zsh_quoted(text):
    text = re.sub(r"([\[\]:\\])", r"\\\1", text.replace("`", ""))
    return text.replace("'", "'\\''")


def zsh_flag(flag):
    value = f":{flag.value.lower()}:{'_files' if flag.value == 'PATH' else ''}" if flag.value else ""
    text = f"[{zsh_quoted(flag.text)}]{value}"
    if flag.short:
        return f"'({flag.short} {flag.long})'{{{flag.short},{flag.long}}}'{text}'"
    return f"'{flag.long}{text}'"


def zsh():
    commands = "\n".join(f"        '{name}:{zsh_quoted(text)}'" for name, _, text in COMMANDS)
    lines = ""
    for name, arguments, _ in COMMANDS:
        flags = [zsh_flag(flag) for flag in Flag.all_in(COMMAND_HELP[name])]
        if name in TARGETS:
            prefixes = " ".join(f"{prefix}\\:" for prefix in TARGETS[name])
            several = "*" if "..." in arguments else "1"
            flags.append(f"'{several}:target:{{compadd -S \"\" -- {prefixes}}}'")
        lines += f"        {name})\n            _arguments -s \\\n                " + " \\\n                ".join(flags) + "\n            ;;\n"
    roles = " \\\n                ".join(zsh_flag(flag) for flag in ROLES + FLAGS)
    return f"""#compdef hsdo
# Completion of hsdo for zsh. From `hsdo --help`, by conf/package/manual.py.

_hsdo() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
        _describe command commands
        return
    fi
    local command=$words[2]
    if (( CURRENT > 2 )) && [[ $command != -* ]]; then
        shift words
        (( CURRENT-- ))
    fi
    case $command in
{lines}        -*)
            _arguments -s \\
                {roles}
            ;;
    esac
}}

_hsdo "$@"
"""


def fish_quoted(text):
    return "'" + text.replace("`", "").replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_flag(flag, condition):
    line = f"complete -c hsdo -n {fish_quoted(condition)}"
    if flag.short:
        line += f" -s {flag.short.removeprefix('-')}"
    line += f" -l {flag.long.removeprefix('--')}"
    if flag.value:
        line += " -rF" if flag.value == "PATH" else " -x"
    return f"{line} -d {fish_quoted(flag.text)}\n"


def fish():
    text = "# Completion of hsdo for fish. From `hsdo --help`, by conf/package/manual.py.\n\ncomplete -c hsdo -f\n"
    for name, _, about in COMMANDS:
        text += f"complete -c hsdo -n __fish_use_subcommand -a {name} -d {fish_quoted(about)}\n"
    names = " ".join(name for name, _, _ in COMMANDS)
    for flag in ROLES + FLAGS:
        text += fish_flag(flag, f"not __fish_seen_subcommand_from {names}")
    for name, _, _ in COMMANDS:
        seen = f"__fish_seen_subcommand_from {name}"
        for flag in Flag.all_in(COMMAND_HELP[name]):
            text += fish_flag(flag, seen)
        if name in TARGETS:
            text += f"complete -c hsdo -n {fish_quoted(seen)} -a {fish_quoted(' '.join(prefix + ':' for prefix in TARGETS[name]))}\n"
    return text


os.makedirs(f"{FOLDER}/completions", exist_ok=True)
for name, text in [
    ("hsdo.1", man_page()),
    ("completions/hsdo.bash", bash()),
    ("completions/_hsdo", zsh()),
    ("completions/hsdo.fish", fish()),
]:
    with open(f"{FOLDER}/{name}", "w", encoding="utf-8") as file:
        file.write(text)
