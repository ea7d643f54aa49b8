#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"
#include "trace/other_runs.hpp"
#include "trace/readout.hpp"
#include "trace/sweep_plan.hpp"

namespace rometrace {

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

/// What is read of the base run, then of each patch's run.
///
/// On a device nothing waits in the loop over layers, but for a mixture of experts, which has to know which experts
/// rows come to, and for layers that are streamed.
std::vector<RunValues> run_pass(const Decoder& model, const PassInput& input, TokenLayers& work);

}  // namespace rometrace
