#include "rometrace/edit/second_moment.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>
#include <optional>
#include <system_error>
#include <utility>

#include "edit/moment_sums.hpp"
#include "rometrace/edit/moment_file.hpp"
#include "rometrace/error.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/trace/sweep.hpp"
#include "trace/attend.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// Texts of one length, their rows side by side.
struct TextGroup {
  std::int64_t length = 0, texts = 0;
  std::int64_t rows() const { return length * texts; }
};

/// Texts that share products. What they are depends on the texts alone.
struct TextBlock {
  std::vector<std::int32_t> token_ids;
  std::vector<TextGroup> groups;  // in the order of the ids
  std::int64_t rows() const { return static_cast<std::int64_t>(token_ids.size()); }
};

std::int64_t rows_of_block(at::Device device) {
  return device.is_cpu() ? 1024 : 8192;
}

std::vector<TextBlock> blocks_of(const MomentText& text, std::int64_t most_rows) {
  std::vector<TextBlock> blocks;
  const auto begin_of = [&](std::size_t i) { return i == 0 ? 0 : text.ends[i - 1]; };
  const auto length_of = [&](std::size_t i) { return text.ends[i] - begin_of(i); };
  for (std::size_t first = 0, end = 0; first < text.ends.size(); first = end) {
    end = first + 1;
    while (end < text.ends.size() && text.ends[end] - begin_of(first) <= most_rows) ++end;
    std::vector<std::size_t> order(end - first);
    std::iota(order.begin(), order.end(), first);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return length_of(a) < length_of(b); });
    auto& block = blocks.emplace_back();
    for (const auto i : order) {
      const auto ids = std::span(text.token_ids)
                           .subspan(static_cast<std::size_t>(begin_of(i)), static_cast<std::size_t>(length_of(i)));
      block.token_ids.insert(block.token_ids.end(), ids.begin(), ids.end());
      if (block.groups.empty() || block.groups.back().length != length_of(i)) {
        block.groups.push_back({length_of(i), 0});
      }
      ++block.groups.back().texts;
    }
  }
  return blocks;
}

/// The first of blocks_of().
TextBlock first_block_of(const MomentText& text, std::int64_t most_rows) {
  MomentText first;
  const auto count = std::min(text.ends.size(), static_cast<std::size_t>(most_rows));  // a text has a row or more
  first.ends.assign(text.ends.begin(), text.ends.begin() + static_cast<std::ptrdiff_t>(count));
  first.token_ids.assign(text.token_ids.begin(), text.token_ids.begin() + first.ends.back());
  return std::move(blocks_of(first, most_rows).front());
}

/// Waits for a GPU.
void finish(const Decoder& model) {
  at::zeros({1}, at::device(model.device())).item<float>();
}

/// Calls `use` with each group and where its rows begin.
template <typename Use>
void for_each_group(const TextBlock& block, Use&& use) {
  std::int64_t begin = 0;
  for (const auto& group : block.groups) {
    use(group, begin);
    begin += group.rows();
  }
}

/// A block of texts on its way through the layers.
struct TextRun {
  const TextBlock* block = nullptr;
  at::Tensor x;                  // [rows, D]
  at::Tensor positions;          // [rows], where the model wants them
  std::vector<at::Tensor> keys;  // [rows, F], of the layers that are asked for
};

TextRun enter(const Decoder& model, const TextBlock& block) {
  TextRun run{&block, {}, {}, {}};
  const auto embeddings = model.embed(block.token_ids);
  std::vector<at::Tensor> entered, positions;
  for_each_group(block, [&](const TextGroup& group, std::int64_t begin) {
    const auto of_texts = embeddings.slice(0, begin, begin + group.rows()).unflatten(0, {group.texts, group.length});
    entered.push_back(model.enter(of_texts).flatten(0, 1));
    positions.push_back(at::arange(group.length, at::device(model.device()).dtype(at::kLong)).repeat({group.texts}));
  });
  run.x = at::cat(entered);
  run.positions = at::cat(positions);
  return run;
}

/// Each text attends to itself: queries [rows, A], keys and values [rows, K] -> [rows, A].
at::Tensor mix_texts(const Attention& attention, const TextBlock& block, const at::Tensor& queries,
                     const at::Tensor& keys_values) {
  if (attention.softcap() > 0 && queries.is_cpu()) {  // libtorch would hold the scores of all pairs
    AttentionBlock all;
    all.queries = queries;
    all.keys_values = keys_values;
    for_each_group(block, [&](const TextGroup& group, std::int64_t) {
      for (std::int64_t i = 0; i < group.texts; ++i) all.segments.push_back({.length = group.length});
    });
    all.runs = at::empty({1, block.groups.back().length, keys_values.size(1)}, keys_values.options());
    all.prefixes = {at::zeros({1}, at::kLong)};
    all.heads = attention.heads();
    all.kv_heads = attention.kv_heads();
    all.scale = attention.scale();
    all.softcap = attention.softcap();
    all.window = attention.window();
    all.biases = attention.biases(block.groups.back().length, queries);
    return attend(all);
  }
  auto mixed = at::empty_like(queries);
  for_each_group(block, [&](const TextGroup& group, std::int64_t begin) {
    const auto end = begin + group.rows();
    mixed.slice(0, begin, end)
        .copy_(attention.mix_rows(queries.slice(0, begin, end), keys_values.slice(0, begin, end), group.texts)
                   .flatten(0, 1));
  });
  return mixed;
}

/// Takes a block of texts through a layer; gives the keys of its MLP. Of the last layer no more than these is computed.
at::Tensor pass_layer(const Block& layer, TextRun& run, bool last) {
  const auto& attention = layer.attn();
  const auto stream = run.x.scalar_type();
  const auto positions = attention.turns() ? run.positions : at::Tensor();
  const auto read = layer.attn_input(run.x);
  const auto mixed = mix_texts(attention, *run.block, attention.queries(read, positions).to(stream),
                               attention.keys_values(read, positions).to(stream));
  const auto between = layer.after_attn(run.x + layer.attn_output(mixed).to(stream));
  auto keys = layer.mlp_hidden(layer.order() == BlockOrder::kParallel ? run.x : between);
  if (!last) run.x = layer.after_mlp(between + layer.mlp_output_of(layer.mlp().output(keys).to(stream)));
  return keys;
}

/// One pass over a text, which sums what some layers' keys give.
class MomentPass {
 public:
  MomentPass(const Decoder& model, const MomentText& text, std::vector<std::int64_t> layers,
             const MomentControl& control)
      : model_(model),
        layers_(std::move(layers)),
        highest_(*std::max_element(layers_.begin(), layers_.end())),
        control_(control),
        blocks_(blocks_of(text, rows_of_block(model.device()))),
        sums_(layers_.size(), model.config().mlp_width, model.device()),
        tokens_(text.tokens()) {
    if (model.streamed()) {
      const auto& config = model.config();
      const auto row_bytes = 8 * (2 * config.width + config.mlp_width * static_cast<std::int64_t>(layers_.size() + 1));
      at_once_ = static_cast<std::size_t>(
          std::max<std::int64_t>(1, control.memory / (row_bytes * rows_of_block(model.device()))));
    }
  }

  MomentSums& sums() { return sums_; }
  std::int64_t done() const { return static_cast<std::int64_t>(done_); }  ///< blocks that the sums have

  /// Goes on behind as many blocks, which the sums have.
  void skip(std::int64_t blocks) {
    done_ = std::min(static_cast<std::size_t>(std::max<std::int64_t>(0, blocks)), blocks_.size());
    std::int64_t texts = 0;
    for (const auto& block : std::span(blocks_).first(done_)) {
      for (const auto& group : block.groups) texts += group.texts;
      rows_skipped_ += block.rows();
    }
    if (texts > 0 && control_.resumed) control_.resumed(texts);
  }

  /// Calls `kept` whenever the sums are those of whole blocks. Where it throws Interrupted they are too.
  template <typename Kept>
  void run(Kept&& kept) {
    while (done_ < blocks_.size()) {
      add_some();
      kept();
    }
  }

 private:
  void add_some() {
    const auto some = std::span(blocks_).subspan(done_, std::min(at_once_, blocks_.size() - done_));
    std::vector<TextRun> runs;
    for (const auto& block : some) runs.push_back(enter(model_, block));
    std::int64_t rows = 0;
    for (const auto& block : some) rows += block.rows();
    auto passed = rows_done_ * (highest_ + 1);
    const auto all = (tokens_ - rows_skipped_) * (highest_ + 1);
    for (std::int64_t layer = 0; layer <= highest_; ++layer) {
      const auto block = model_.block(layer);
      const bool wanted = std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
      for (auto& run : runs) {
        if (control_.stop.stop_requested()) throw Interrupted();
        auto keys = pass_layer(*block, run, layer == highest_);
        if (wanted) run.keys.push_back(std::move(keys));
        passed += run.block->rows();
        if (control_.progress) control_.progress(passed, all);
      }
    }
    for (const auto& run : runs) {
      for (std::size_t i = 0; i < layers_.size(); ++i) sums_.add(i, run.keys[i]);
    }
    done_ += some.size();
    rows_done_ += rows;
  }

  const Decoder& model_;
  std::vector<std::int64_t> layers_;  // ascending
  std::int64_t highest_;
  const MomentControl& control_;
  std::vector<TextBlock> blocks_;
  MomentSums sums_;
  std::int64_t tokens_;
  std::size_t at_once_ = 1;  // blocks that go through a layer before the next one
  std::size_t done_ = 0;     // blocks
  std::int64_t rows_skipped_ = 0, rows_done_ = 0;
};

std::string dtype_name(const Decoder& model) {
  const auto name = [&] {
    switch (model.dtype()) {
      case at::kDouble:
        return "float64";
      case at::kBFloat16:
        return "bfloat16";
      case at::kHalf:
        return "float16";
      default:
        return "float32";
    }
  }();
  const bool tf32 = model.device().is_cuda() && at::globalContext().allowTF32CuBLAS();
  return std::string(name) + (tf32 ? ", TF32" : "");
}

std::vector<std::int64_t> ascending(const Decoder& model, std::span<const std::int64_t> layers) {
  const auto L = model.config().layers;
  std::vector<std::int64_t> sorted(layers.begin(), layers.end());
  std::sort(sorted.begin(), sorted.end());
  for (const auto layer : sorted) {
    if (layer < 0 || layer >= L) {
      throw Error("layer " + std::to_string(layer) + " is not in the model; expected 0 to " + std::to_string(L - 1));
    }
  }
  return sorted;
}

SecondMoment moment_of(const Decoder& model, const MomentText& text, std::int64_t layer, at::Tensor mean) {
  SecondMoment moment;
  moment.layer = layer;
  moment.mean = std::move(mean);
  moment.tokens = text.tokens();
  moment.texts = text.texts;
  moment.cut = text.cut;
  moment.text_sha256 = text.sha256;
  moment.dtype = dtype_name(model);
  return moment;
}

// ---- The cache ----

/// What sums depend on, but for the layer.
std::string key_of(const MomentCache& cache, const Decoder& model, const MomentText& text, const std::string& rest) {
  Sha256 hash;
  const std::string head = "rometrace second moment, version 1\n" + cache.weights_sha256 + "\n" + text.sha256 + "\n" +
                           std::to_string(text.tokens()) + " tokens, cut " + std::to_string(text.cut) + "\n" +
                           dtype_name(model) + "\n" + rest + "\n";
  hash.update(std::as_bytes(std::span(head)));
  hash.update(std::as_bytes(std::span(text.token_ids)));
  hash.update(std::as_bytes(std::span(text.ends)));
  return hash.hex_digest();
}

/// A moment of the cache; nothing where it is not there, damaged, or another one.
std::optional<SecondMoment> read_cached(const fs::path& path, const SecondMoment& expected, std::int64_t width) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return std::nullopt;
  try {
    auto found = read_second_moment(path, expected.layer);
    if (found.width() != width || found.tokens != expected.tokens || found.text_sha256 != expected.text_sha256 ||
        found.weights_sha256 != expected.weights_sha256 || found.cut != expected.cut) {
      return std::nullopt;
    }
    return found;
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// The file of sums that are not finished.
class SumsFile {
 public:
  SumsFile(fs::path path, std::string key) : path_(std::move(path)), key_(std::move(key)) {}

  void restore(MomentPass& pass) {
    if (path_.empty()) return;
    if (const auto done = pass.sums().restore(path_, key_)) pass.skip(*done);
    saved_ = pass.done();
  }

  /// Where that is at most a twentieth of the time.
  void save_now_and_then(MomentPass& pass) {
    constexpr double kLeast = 1, kShare = 20;
    if (since_.seconds() >= std::max(kLeast, kShare * took_)) save(pass);
  }

  void save(MomentPass& pass) {
    if (path_.empty() || pass.done() == saved_) return;
    const Stopwatch watch;
    std::error_code ignored;
    fs::create_directories(path_.parent_path(), ignored);
    try {
      pass.sums().save(path_, key_, pass.done());
    } catch (const Error&) {  // a cache is a convenience
    }
    saved_ = pass.done();
    took_ = watch.seconds();
    since_ = Stopwatch();
  }

  void remove() const {
    std::error_code ignored;
    if (!path_.empty()) fs::remove(path_, ignored);
  }

 private:
  fs::path path_;
  std::string key_;
  std::int64_t saved_ = 0;
  double took_ = 0;
  Stopwatch since_;
};

/// Some layers' moments as they are collected with a cache: sums that are not finished are kept, and so are the
/// moments.
class KeptCollection {
 public:
  KeptCollection(const Decoder& model, const MomentText& text, const MomentCache& cache, const MomentControl& control)
      : model_(model), text_(text), cache_(cache), control_(control) {}

  /// `layers` ascending; none is nothing to do.
  void collect(const std::vector<std::int64_t>& layers) {
    if (layers.empty()) return;
    layers_ = layers;
    pass_.emplace(model_, text_, layers, control_);
    std::string rest = std::to_string(rows_of_block(model_.device())) + " rows, layers";
    for (const auto layer : layers) rest += " " + std::to_string(layer);
    const auto key = key_of(cache_, model_, text_, rest);
    file_.emplace(cache_.folder.empty() ? fs::path() : cache_.folder / ("moment-sums-" + key + ".safetensors"), key);
    file_->restore(*pass_);
    try {
      pass_->run([&] { file_->save_now_and_then(*pass_); });
    } catch (const Interrupted&) {
      file_->save(*pass_);
      throw;
    }
  }

  bool has(std::int64_t layer) const { return std::find(layers_.begin(), layers_.end(), layer) != layers_.end(); }

  /// `moment` has all but the mean.
  SecondMoment take(SecondMoment moment) {
    const auto place = std::find(layers_.begin(), layers_.end(), moment.layer) - layers_.begin();
    moment.mean = pass_->sums().take_mean(static_cast<std::size_t>(place), text_.tokens(), moment.layer);
    if (cache_.folder.empty()) return moment;
    std::error_code ignored;
    fs::create_directories(cache_.folder, ignored);
    try {
      write_moment_file(moment_cache_file(cache_, model_, text_, moment.layer), moment);
    } catch (const Error&) {  // a cache is a convenience
    }
    return moment;
  }

  /// When all have been taken.
  void end() const {
    if (file_) file_->remove();
  }

 private:
  const Decoder& model_;
  const MomentText& text_;
  const MomentCache& cache_;
  const MomentControl& control_;
  std::vector<std::int64_t> layers_;
  std::optional<MomentPass> pass_;
  std::optional<SumsFile> file_;
};

}  // namespace

MomentCost moment_cost(const DecoderConfig& config, std::int64_t tokens, std::span<const std::int64_t> layers) {
  if (layers.empty()) return {};
  const auto highest = *std::max_element(layers.begin(), layers.end());
  const auto count = static_cast<std::int64_t>(layers.size());
  const auto F = static_cast<double>(config.mlp_width), N = static_cast<double>(tokens);
  MomentCost cost;
  cost.flops = static_cast<double>(highest + 1) * TokenLayers{tokens, tokens, tokens, 0}.flops(config) +
               static_cast<double>(count) * N * 2 * F * F;
  cost.memory = count * MomentSums::bytes(config.mlp_width);
  return cost;
}

double moment_seconds(const Decoder& model, const MomentText& text, std::span<const std::int64_t> layers) {
  const at::NoGradGuard no_grad;
  if (layers.empty()) return 0;
  const auto first = first_block_of(text, rows_of_block(model.device()));
  const auto layer = model.block(0);
  MomentSums sums(1, model.config().mlp_width, model.device());
  constexpr int kTimes = 4;
  double of_layer = HUGE_VAL, of_sums = HUGE_VAL;
  for (int time = 0; time < 2 || (time < kTimes && of_layer < 1); ++time) {  // the first time weights are read
    auto run = enter(model, first);
    const Stopwatch passing;
    const auto keys = pass_layer(*layer, run, /*last=*/false);
    finish(model);
    of_layer = std::min(of_layer, passing.seconds());
    const Stopwatch adding;
    sums.add(0, keys);
    finish(model);
    of_sums = std::min(of_sums, adding.seconds());
  }
  const auto blocks = static_cast<double>(text.tokens()) / static_cast<double>(first.rows());
  const auto highest = *std::max_element(layers.begin(), layers.end());
  return blocks * (static_cast<double>(highest + 1) * of_layer + static_cast<double>(layers.size()) * of_sums);
}

std::vector<SecondMoment> second_moments(const Decoder& model, const MomentText& text,
                                         std::span<const std::int64_t> layers, const MomentControl& control) {
  const at::NoGradGuard no_grad;
  if (layers.empty()) return {};
  const auto sorted = ascending(model, layers);
  MomentPass pass(model, text, sorted, control);
  pass.run([] {});
  std::vector<SecondMoment> moments;
  for (const auto layer : layers) {
    const auto place = std::find(sorted.begin(), sorted.end(), layer) - sorted.begin();
    moments.push_back(
        moment_of(model, text, layer, pass.sums().take_mean(static_cast<std::size_t>(place), text.tokens(), layer)));
  }
  return moments;
}

fs::path moment_cache_file(const MomentCache& cache, const Decoder& model, const MomentText& text, std::int64_t layer) {
  return cache.folder /
         ("second-moment-" + key_of(cache, model, text, "layer " + std::to_string(layer)) + ".safetensors");
}

bool moment_is_cached(const MomentCache& cache, const Decoder& model, const MomentText& text, std::int64_t layer) {
  std::error_code ignored;
  return !cache.folder.empty() && fs::is_regular_file(moment_cache_file(cache, model, text, layer), ignored);
}

void cached_second_moments(const Decoder& model, const MomentText& text, std::span<const std::int64_t> layers,
                           const MomentCache& cache, const MomentControl& control,
                           const std::function<void(SecondMoment)>& take) {
  const at::NoGradGuard no_grad;
  const auto sorted = ascending(model, layers);
  std::vector<std::int64_t> missing;
  for (const auto layer : sorted) {
    if (!moment_is_cached(cache, model, text, layer)) missing.push_back(layer);
  }
  KeptCollection collection(model, text, cache, control);
  collection.collect(missing);
  for (const auto layer : sorted) {
    auto expected = moment_of(model, text, layer, {});
    expected.weights_sha256 = cache.weights_sha256;
    if (collection.has(layer)) {
      take(collection.take(std::move(expected)));
    } else if (auto found =
                   read_cached(moment_cache_file(cache, model, text, layer), expected, model.config().mlp_width)) {
      take(std::move(*found));
    } else {  // its file is damaged
      KeptCollection anew(model, text, cache, control);
      anew.collect({layer});
      take(anew.take(std::move(expected)));
      anew.end();
    }
  }
  collection.end();
}

std::vector<SecondMoment> cached_second_moments(const Decoder& model, const MomentText& text,
                                                std::span<const std::int64_t> layers, const MomentCache& cache,
                                                const MomentControl& control) {
  std::vector<SecondMoment> moments;
  cached_second_moments(model, text, layers, cache, control,
                        [&](SecondMoment moment) { moments.push_back(std::move(moment)); });
  return moments;
}

}  // namespace rometrace
