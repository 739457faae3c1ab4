"""What tests share: waiting for conditions, real services, builders of events."""
