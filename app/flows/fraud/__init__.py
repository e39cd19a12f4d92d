"""Fraud: rules in the way of a charge or an order, and rules that look at what has happened."""
