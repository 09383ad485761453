"""Runs published RocketMQ clients and tools, unchanged, against a cluster and checks what they saw."""
