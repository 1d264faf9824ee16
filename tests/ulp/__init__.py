"""How far compiled functions of real numbers are from the exact results, measured in units in the last place (ULP).

``python -m tests.ulp sinh tan`` tries every float32 there is, or many float64 and pairs, and prints what it finds;
``--write`` puts it into `lowering/ACCURACY.md`, which `test_accuracy` holds compiled code to.
"""
