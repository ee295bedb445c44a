# Made by scripts/generate-sdk.ts; not edited by hand.
