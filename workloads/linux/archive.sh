# Writes a cpio archive in the format "newc" to the standard output, entry by entry. So the initial
# RAM disk needs neither cpio nor the right to make device nodes.

number=0

# entry NAME MODE SIZE MAJOR MINOR: a header. The data, padded to four bytes, has to follow.
entry() {
    number=$((number + 1))
    printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\0' \
        $number $2 0 0 1 0 $3 0 0 $4 $5 $((${#1} + 1)) 0 "$1"
    pad $((110 + ${#1} + 1))
}

# pad SIZE: zeros up to the next multiple of four.
pad() {
    case $(($1 % 4)) in
    1) printf '\0\0\0' ;;
    2) printf '\0\0' ;;
    3) printf '\0' ;;
    esac
}

# directory NAME...
directory() {
    for name in "$@"; do entry "$name" $((040755)) 0 0 0; done
}

# device NAME MAJOR MINOR: a character device.
device() {
    entry "$1" $((020600)) 0 "$2" "$3"
}

# link NAME TARGET: a symbolic link.
link() {
    entry "$1" $((0120777)) ${#2} 0 0
    printf %s "$2"
    pad ${#2}
}

# file NAME MODE PATH
file() {
    size=$(($(wc -c <"$3")))
    entry "$1" $((0100000 + 0$2)) $size 0 0
    cat "$3"
    pad $size
}

end() {
    entry 'TRAILER!!!' 0 0 0 0
}
