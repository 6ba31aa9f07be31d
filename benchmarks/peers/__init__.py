"""Other people's LMTP servers, started the way their users start them."""
