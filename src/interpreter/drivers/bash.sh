# Runs pieces of code in one shell: its variables, functions and directory stay from one to the next.
#
# In, on standard input: a mark and the code, each ended by a NUL. Out: what the code writes, then on standard output
# NUL, the mark, " end ", the status, NUL, and on standard error NUL, the mark, NUL.
#
# SIGINT ends the piece that runs. The code is sourced and not evaluated, since `return` in the trap then leaves it, and what
# it declares is the shell's own; standard input has been read to its end before the first of its commands runs.
exec 250<&0 251>&1 252>&2 </dev/null
trap 'return 130 2>/dev/null' INT
while :; do
  IFS= read -r -d '' -u 250 stacyvm_mark && IFS= read -r -d '' -u 250 stacyvm_code || {
    [ $? -gt 128 ] && continue # an interruption between two pieces
    break
  }
  source /dev/stdin <<<"$stacyvm_code"
  printf '\0%s end %d\0' "$stacyvm_mark" $? >&251
  printf '\0%s\0' "$stacyvm_mark" >&252
done
