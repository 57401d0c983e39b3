"""The scripts that make bash, zsh and fish ask builda for completions.

Each runs the command that stands on the line with `_BUILDA_COMPLETE` set to the shell's name and the words as
arguments. The first line of the answer is `words`, `nospace` (the same, and no space follows), `files` or `dirs`; each
further line is a word, and for zsh and fish a tab and what it means. Where there is no answer, the shell completes file
names as it does for any other command.
"""

from __future__ import annotations

from collections.abc import Mapping

from builda.values import dataclass

BASH = r"""_builda() {
    local -a answer=()
    COMPREPLY=()
    mapfile -t answer < <(_BUILDA_COMPLETE=bash "$1" "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null </dev/null)
    case ${answer[0]-} in
        words) COMPREPLY=("${answer[@]:1}") ;;
        nospace) COMPREPLY=("${answer[@]:1}"); compopt -o nospace ;;
        dirs) compopt +o bashdefault +o default -o dirnames ;;
    esac
}
complete -o bashdefault -o default -o nosort -F _builda builda 2>/dev/null ||
    complete -o bashdefault -o default -F _builda builda
"""

ZSH = r"""#compdef builda
_builda() {
    local -a answer described
    local line value
    answer=("${(@f)$(_BUILDA_COMPLETE=zsh "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)}")
    for line in "${(@)answer[2,-1]}"; do
        value=${line%%$'\t'*}
        described+=("${value//:/\\:}:${line#*$'\t'}")
    done
    if (( $#described )); then
        local -a after
        [[ $answer[1] == nospace ]] && after=(-S '')
        _describe -V builda described "${(@)after}" && return
    fi
    [[ $PREFIX == -* ]] || compset -P '*[=:,]' || true
    [[ $PREFIX == -*=* ]] && compset -P '*[=:,]'
    if [[ $answer[1] == dirs ]]; then
        _path_files -/
    else
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _builda "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _builda builda
fi
"""

FISH = r"""function __builda_complete
    set -l word (commandline -ct)
    set -l words (commandline -cop)
    set -l answer (env _BUILDA_COMPLETE=fish $words "$word" 2>/dev/null </dev/null)
    if test (count $answer) -gt 1
        printf '%s\n' $answer[2..-1]
        return
    end
    set -l before (string match -r '^.*[=:,]' -- "$word")
    set -l rest (string replace -r '^.*[=:,]' '' -- "$word")
    set -l paths
    if test "$answer[1]" = dirs
        set paths (__fish_complete_directories "$rest" '')
    else
        set paths (__fish_complete_path "$rest")
    end
    for path in $paths
        echo "$before$path"
    end
end
complete --command builda --no-files --arguments '(__builda_complete)'
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell's script, and whether it shows what a word means."""

    script: str
    describes: bool


SHELLS: Mapping[str, Shell] = {"bash": Shell(BASH, False), "zsh": Shell(ZSH, True), "fish": Shell(FISH, True)}
