"""What each shell runs: it asks ``pydamon completion`` for words, and completes names of files by itself.

An answer has a line for each word or kind of words, in fields that are separated by tabs: ``word WORD HELP``,
``files``, ``records``, ``command N`` (what is from the Nth word on is a command line of its own).
"""

from __future__ import annotations

_BASH = r"""# bash completion of pydamon; eval "$(pydamon completion bash)" in ~/.bashrc
_pydamon() {
    local kind value help program=$1 current=${COMP_WORDS[COMP_CWORD]}
    [[ ${1##*/} == perf-damon ]] && program=${1%perf-damon}pydamon
    [[ $current == = ]] && current=
    local -a files
    COMPREPLY=()
    while IFS=$'\t' read -r kind value help; do
        case $kind in
        word) COMPREPLY+=("$value") ;;
        files)
            compopt -o filenames
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$current")
            ;;
        records)
            compopt -o filenames
            mapfile -t files < <(compgen -f -X '!*.damon' -- "$current"; compgen -d -- "$current")
            ((${#files[@]} + ${#COMPREPLY[@]})) || mapfile -t files < <(compgen -f -- "$current")
            COMPREPLY+=("${files[@]}")
            ;;
        command)
            if declare -F _command_offset >/dev/null; then
                _command_offset "$value"
            elif ((COMP_CWORD == value)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$current")
            else
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            ;;
        esac
    done < <("$program" completion bash --at "$COMP_CWORD" -- "${COMP_WORDS[@]}" 2>/dev/null)
}
complete -o nosort -F _pydamon pydamon perf-damon
"""

_ZSH = r"""#compdef pydamon perf-damon
# zsh completion of pydamon; as _pydamon in a directory of fpath, or eval "$(pydamon completion zsh)" after compinit
_pydamon() {
    local kind value help line program=${words[1]}
    local -a found answer
    [[ ${program:t} == perf-damon ]] && program=${program%perf-damon}pydamon
    answer=("${(@f)$($program completion zsh --at $((CURRENT - 1)) -- "${(@)words}" 2>/dev/null)}")
    for line in "${(@)answer}"; do
        IFS=$'\t' read -r kind value help <<< "$line"
        case $kind in
        word) found+=("${value//:/\\:}${help:+:$help}") ;;
        files) compset -P '*='; _files ;;
        records) compset -P '*='; _files -g '*.damon(-.)' ;;
        command) shift $value words; ((CURRENT -= value)); _normal ;;
        esac
    done
    (($#found)) && _describe word found
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _pydamon "$@"
else
    compdef _pydamon pydamon perf-damon
fi
"""

_FISH = r"""# fish completion of pydamon; as pydamon.fish in ~/.config/fish/completions, or through source
function __pydamon_words
    set -l words (commandline -opc)
    set -l program (string replace -r 'perf-damon$' pydamon -- $words[1])
    set -l at (count $words)
    set -a words (commandline -ct)
    for line in ($program completion fish --at $at -- $words 2>/dev/null)
        set -l fields (string split \t -- $line)
        switch $fields[1]
            case word
                printf '%s\t%s\n' $fields[2] $fields[3]
            case files
                __fish_complete_path (string replace -r '^--[^=]*=' '' -- (commandline -ct))
            case records
                __fish_complete_suffix .damon
            case command
                complete -C(string join ' ' -- (string escape -- $words[(math $fields[2] + 1)..-1]))
        end
    end
end
complete -c pydamon -f -a '(__pydamon_words)'
complete -c perf-damon -f -a '(__pydamon_words)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
