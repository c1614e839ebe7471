"""The emulator with SageMaker plugged in, and the deployer of cloud assemblies."""
