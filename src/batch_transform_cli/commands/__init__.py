"""The commands, one to a module: what they take, and what they print.

What imports boto3 or CDK is imported by the commands that need it, when they run: it takes half a
second.
"""
