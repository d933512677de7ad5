#!/bin/sh
# Run by baton in the chain's home, when the identity link leads to the staked identity already.
set -eu
tower="$LEDGER/tower-1_9-$IDENTITY.bin"
handed_over="$LEDGER/tower-handed-over.bin"

if [ -n "$(find "$handed_over" -mmin -1 2>/dev/null)" ]; then
    # A handover: the old holder sent its tower after its last vote.
    mv -f "$handed_over" "$tower"
    exec agave-validator --ledger "$LEDGER" set-identity --require-tower identity.json
fi
# A failover: an old tower of this host knows less than the chain does. Without one the validator takes its
# lockouts from the votes on the chain, and baton has waited for a block after the old holder's end.
rm -f "$handed_over"
[ ! -e "$tower" ] || mv -f "$tower" "$tower.old"
exec agave-validator --ledger "$LEDGER" set-identity identity.json
