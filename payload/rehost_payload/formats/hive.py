"""placeholder until the hive reader lands"""
