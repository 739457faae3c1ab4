"""The way in: webhooks and commands become events, commits become plans."""
