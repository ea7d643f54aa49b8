#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"
#include "trace/readout.hpp"
#include "trace/sweep_plan.hpp"

namespace rometrace {

/// What a pass reads of the other runs of J facts (the clean ones or, when noising, the corrupted ones): of each fact's
/// one run, or of its draws (S).
struct OtherRuns {
  explicit OtherRuns(const std::vector<const Recording*>& facts);

  at::Tensor inputs;                   ///< [L, J, S, positions, D]
  std::map<Site, at::Tensor> outputs;  ///< [L, J, S, R - b, D]
  at::Tensor neurons;                  ///< [layers, J, S, positions, F], as Recording has them, or undefined
  LayerRange neuron_layers;
  std::vector<std::int64_t> neuron_positions;
};

/// The readings of one run: [facts, draws of a fact, 1 + readings].
using RunValues = std::vector<double>;

/// One pass up the layers.
struct PassInput {
  const OtherRuns& other;
  const SweepShape& shape;
  const SweepPlan& plan;
  const at::Tensor& base_embeddings;  ///< [J N, R, D], of the base runs, positions added
  std::span<const Question> questions;
  std::span<const Reading> readings;
  std::int64_t block_rows;                   ///< that go through a layer's products together; 0: what suits
  Workers* workers;                          ///< who shares a layer's blocks, or none
  const std::function<void()>& after_block;  ///< called often, by one at a time, with the work done so far in `work`
  Recording* base_recording = nullptr;       ///< filled where given: the base runs of all facts, S = J N
};

/// Rows that go through a product together where a thread has them to itself, at most. On a CPU products run at their
/// full rate from 512 on, and memory for what is in between grows with them.
std::int64_t full_block_rows(at::Device device);

/// What is read of the base run, then of each patch's run.
std::vector<RunValues> run_pass(const Decoder& model, const PassInput& input, TokenLayers& work);

}  // namespace rometrace
