"""Agents decide the decoding parameters: fixed schedules, searched ones, learned policies."""
