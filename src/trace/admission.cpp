#include "trace/admission.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/where.h>

#include <algorithm>

namespace rometrace {
namespace {

// Rows of `from` as new rows of the stream, which begins with those that are there already.
void copy_rows(const Copies& copies, const at::Tensor& from, const PassParts& pass) {
  if (copies.from.empty()) return;
  // On the CPU in pieces, of which each is worth a worker's while.
  const auto count = copies.from.count, at_once = pass.rows.is_cpu() ? std::int64_t{256} : count;
  share(pass.workers, (count + at_once - 1) / at_once, [&](std::int64_t piece) {
    const auto begin = piece * at_once, some = std::min(at_once, count - begin);
    auto to = pass.rows.narrow(0, copies.row + begin, some);
    at::index_select_out(to, from, 0, pass.lists.numbers({copies.from.begin + begin, some}));
  });
}

// Those that are there already, before rows that are given now.
at::Tensor rows_before(const Copies& copies, const PassParts& pass) {
  return pass.rows.narrow(0, 0, copies.row);
}

// What the base run's row becomes in each of the patches, [rows, D].
class BegunRows {
 public:
  BegunRows(const Beginning& beginning, std::int64_t layer, const Block& block, const BaseLayer& base,
            const PassParts& pass)
      : beginning_(beginning), layer_(layer), block_(block), base_(base), pass_(pass) {}

  at::Tensor operator()() const {
    switch (beginning_.site) {
      case Site::kState:
        return other_output();
      case Site::kMlp:
        return block_.after_mlp(of_base(base_.before_mlp) + other_output());
      case Site::kAttn:
        return after_attention(other_output());
      case Site::kMixed:
        return after_head();
      case Site::kMlpHidden:
        return after_product(beginning_.of_single_neurons() ? product_of_neurons() : product_of_sets());
      case Site::kEmbedding:
      case Site::kMlpProduct:
        break;
    }
    TORCH_INTERNAL_ASSERT(false, "no patch begins there");
  }

 private:
  at::Tensor numbers(const Numbers& some) const { return pass_.lists.numbers(some); }

  at::Tensor of_base(const at::Tensor& rows) const { return rows.index_select(0, numbers(beginning_.base)); }

  at::Tensor other_output() const {
    return pass_.other.outputs_of(beginning_.site, layer_).index_select(0, numbers(beginning_.other));
  }

  at::Tensor after_attention(const at::Tensor& output) const {
    pass_.counter.add_mlp(block_, output.size(0));
    return block_.after(of_base(base_.before_attention), output);
  }

  at::Tensor after_head() const {
    const auto mixed = of_base(base_.mixed);
    const auto width = block_.attn().head_width();
    const auto others = heads_of(pass_.other.outputs_of(Site::kMixed, layer_), width);
    heads_of(mixed, width)
        .index_copy_(0, numbers(beginning_.heads.rows), others.index_select(0, numbers(beginning_.heads.from)));
    pass_.counter.add(&TokenLayers::attention, mixed.size(0));
    return after_attention(block_.attn_output(mixed));
  }

  at::Tensor after_product(const at::Tensor& product) const {
    return block_.after_mlp(of_base(base_.before_mlp) + block_.mlp_output_of(product));
  }

  // A changed neuron adds its row of the MLP's last matrix.
  at::Tensor product_of_neurons() const {
    const auto others = pass_.other.neurons_of(layer_).flatten(), own = base_.neurons.flatten();
    const auto changes = others.index_select(0, numbers(beginning_.other_neurons)) -
                         own.index_select(0, numbers(beginning_.base_neurons));
    const auto outputs = pass_.lists.output_rows(layer_).index_select(0, numbers(beginning_.output_rows));
    return of_base(base_.product) + changes.unsqueeze(1) * outputs;
  }

  at::Tensor product_of_sets() const {
    const auto others = pass_.other.neurons_of(layer_).index_select(0, numbers(beginning_.other));
    const auto neurons = at::where(pass_.lists.chosen(beginning_.sets, layer_), others, of_base(base_.neurons));
    pass_.counter.add(&TokenLayers::neurons, neurons.size(0));
    return block_.mlp().output(neurons).to(pass_.rows.scalar_type());
  }

  const Beginning& beginning_;
  const std::int64_t layer_;
  const Block& block_;
  const BaseLayer& base_;
  const PassParts& pass_;
};

}  // namespace

void admit_before(std::int64_t layer, bool noising, const PassParts& pass) {
  const auto& given = pass.of(layer).given_before;
  copy_rows(given, noising ? rows_before(given, pass) : pass.other.inputs_of(layer), pass);
}

void admit_after(std::int64_t layer, const Block& block, const BaseLayer& base, const PassParts& pass) {
  const auto& schedule = pass.of(layer);
  copy_rows(schedule.given_of_base, rows_before(schedule.given_of_base, pass), pass);
  share(pass.workers, static_cast<std::int64_t>(schedule.beginnings.size()), [&](std::int64_t i) {
    const auto& beginning = schedule.beginnings[static_cast<std::size_t>(i)];
    auto rows = pass.rows;
    rows.index_copy_(0, pass.lists.numbers(beginning.rows), BegunRows(beginning, layer, block, base, pass)());
  });
  copy_rows(schedule.given_of_parents, rows_before(schedule.given_of_parents, pass), pass);
}

}  // namespace rometrace
