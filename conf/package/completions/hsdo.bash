# Completion of hsdo for bash. From `hsdo --help`, by conf/package/manual.py.

_hsdo() {
    local word=${COMP_WORDS[COMP_CWORD]} words
    COMPREPLY=()
    case ${COMP_WORDS[COMP_CWORD-1]} in
        --config)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --for|--note) return ;;
    esac
    case ${COMP_WORDS[1]} in
        check) words='-s --server -c --client --quick --json --config -d --debug -h --help' ;;
        status) words='--json --config -d --debug -h --help' ;;
        why) words='--json --config -d --debug -h --help slot:' ;;
        drain) words='--for --note --yes --dry-run --json --config -d --debug -h --help slot: zone: group:' ;;
        enable) words='--dry-run --json --config -d --debug -h --help slot: zone: group:' ;;
        -*) words='-s --server -c --client --config --once --dry-run --create-table -d --debug -h --help -V --version' ;;
        *) words='check status why drain enable -s --server -c --client --config --once --dry-run --create-table -d --debug -h --help -V --version' ;;
    esac
    if (( COMP_CWORD == 1 )); then
        words='check status why drain enable -s --server -c --client --config --once --dry-run --create-table -d --debug -h --help -V --version'
    fi
    # Bash breaks words at colons: what is before one is typed already.
    if (( COMP_CWORD > 1 )) && [[ $word == : || ${COMP_WORDS[COMP_CWORD-1]} == : ]]; then
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *: ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _hsdo hsdo
