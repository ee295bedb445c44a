"""Written by hand; the synchronous half is made from it by scripts/generate-sdk.ts."""
