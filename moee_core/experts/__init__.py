"""Mixture of emotion experts: gates, experts, the mixture."""
