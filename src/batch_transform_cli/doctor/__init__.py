"""Looks whether an app can be deployed, and run: read-only, in AWS or in a local cloud.

assembly, values, needs     what the app's templates ask for, without a cloud
reader                      the one door to AWS, which has operations that read and no others
findings                    what a check says
every other module          the checks of one topic
examination                 which checks, where, and what becomes of one that cannot be made
"""
