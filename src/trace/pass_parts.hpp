#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"
#include "trace/other_runs.hpp"
#include "trace/pass_schedule.hpp"

// What the parts of one pass up the layers have in common.

namespace rometrace {

/// Counts what a pass has computed, and tells of it: by one thread at a time.
class WorkCounter {
 public:
  WorkCounter(TokenLayers& work, const std::function<void()>& after_block) : work_(work), after_block_(after_block) {}

  void add(std::int64_t TokenLayers::*what, std::int64_t rows) {
    const std::scoped_lock lock(mutex_);
    work_.*what += rows;
  }
  /// Rows of the block's MLP.
  void add_mlp(const Block& block, std::int64_t rows) {
    add(block.is_mixture() ? &TokenLayers::mixture : &TokenLayers::mlp, rows);
  }
  void tell() {
    const std::scoped_lock lock(mutex_);
    after_block_();
  }

 private:
  std::mutex mutex_;
  TokenLayers& work_;
  const std::function<void()>& after_block_;
};

/// A schedule's lists on the device: brought there when this is made, so that nothing waits for them in the loop over
/// layers. On the CPU the numbers are the schedule's own.
class PassLists {
 public:
  /// Reads the rows of the last matrices that single neurons need from the model's files; calls `counter.tell()` after
  /// each layer's. Keeps `schedule`.
  PassLists(const Decoder& model, PassSchedule& schedule, WorkCounter& counter);

  at::Tensor numbers(const Numbers& some) const {  // [count], int64
    return numbers_.slice(0, some.begin, some.begin + some.count);
  }
  /// Bool [rows, F]: which neurons of each row the sets have.
  at::Tensor chosen(const NeuronSets& sets, std::int64_t layer) const;
  /// Rows of the layer's last MLP matrix that LayerSchedule::neurons name, in the stream's dtype, [neurons, D].
  const at::Tensor& output_rows(std::int64_t layer) const { return output_rows_[static_cast<std::size_t>(layer)]; }

 private:
  at::Tensor ranks(std::int64_t layer) const;  // of LayerSchedule::orders, [orders, F]

  const PassSchedule& schedule_;
  at::Tensor numbers_;
  std::vector<at::Tensor> ranks_;  // [L], elsewhere than on the CPU: there the orders are at hand
  std::vector<at::Tensor> output_rows_;
};

/// The base run's values of one layer that others are made of, at all its rows that were computed: [J N (R - b), D].
struct BaseLayer {
  at::Tensor before_attention, mixed, before_mlp;  ///< where patches begin within the layer
  at::Tensor neurons, product;                     ///< likewise: [J N (R - b), F], and of the MLP's last matrix
  std::map<Site, at::Tensor> outputs;              ///< where they are held
};

/// What the parts of a pass read, and the rows that they write.
struct PassParts {
  const Decoder& model;
  const OtherRuns& other;
  const PassSchedule& schedule;
  const PassLists& lists;
  Workers* workers;  ///< who shares a layer's pieces, or none
  WorkCounter& counter;
  at::Tensor rows;  ///< [rows of all segments, D]: the residual stream

  const LayerSchedule& of(std::int64_t layer) const { return schedule.layers[static_cast<std::size_t>(layer)]; }
};

/// Rows [.., width] as their heads' slices [.. H, d], a view.
inline at::Tensor heads_of(const at::Tensor& rows, std::int64_t head_width) {
  return rows.view({-1, head_width});
}

}  // namespace rometrace
