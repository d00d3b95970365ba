"""Find the layout of each tensor of a checkpoint by running the model once on the meta device.

An example: GPT-2 stores `c_fc.weight` as `[in, out]` and computes `addmm(bias, x, weight)`. The watcher sees the
parameter as the right operand of `addmm`, whose dimensions are (`in`, `out`): this is its layout, whatever its name or
shape suggest.

- `models` builds the model from its config, without weights; `inputs` makes arguments for it; `passes` runs it.
- `watcher` sees every operation; `sources` follows views and copies back to parameters; `axis_roles` combines the
  products of a parameter.
- `outputs` finds fused matrices (query, key and value) by the parts into which their outputs are split.
- `correspondence` maps parameters to the tensors of the file, which may be renamed, stacked or transposed.
"""
