#include "cli/commands/edit_session.hpp"

#include <ATen/ops/eye.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "cli/files/share_dir.hpp"
#include "cli/machine/freed_memory.hpp"
#include "cli/options/option_values.hpp"
#include "cli/progress_bar.hpp"
#include "cli/window_note.hpp"
#include "rometrace/edit/continuation.hpp"
#include "rometrace/edit/memit.hpp"
#include "rometrace/edit/moment_file.hpp"
#include "rometrace/edit/moment_text.hpp"
#include "rometrace/edit/second_moment.hpp"
#include "rometrace/edit/templates.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/report/edit_json.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/embedding_moments.hpp"
#include "rometrace/trace/sweep.hpp"
#include "text/size_text.hpp"

namespace rometrace::cli {
namespace {

// The prompts of the facts that rometrace ships.
std::vector<std::string> shipped_prompts() {
  return prompts_of(read_facts(std::vector<std::filesystem::path>{share_dir() / "facts.json"}));
}

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::vector<std::string> lines;
  const auto text = read_text_file(file, FileKind::kReadable);
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    if (!strip(text.substr(begin, end - begin)).empty()) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::string ratio_text(double ratio) {
  return fmt::format("{:.2f}", ratio);
}

// One line for each range of layers: "13 to 17", "3, 5".
std::string layers_text(std::span<const std::int64_t> layers) {
  if (layers.size() > 2 && layers.back() - layers.front() == static_cast<std::int64_t>(layers.size()) - 1) {
    return std::to_string(layers.front()) + " to " + std::to_string(layers.back());
  }
  std::string text;
  for (const auto layer : layers) text += (text.empty() ? "" : ", ") + std::to_string(layer);
  return text;
}

}  // namespace

EditSession::EditSession(const EditOptions& options, std::stop_token stop)
    : options_(options),
      stop_(std::move(stop)),
      located_(locate_model(options.run, stop_)),
      tokenizer_(Tokenizer::load(located_.folder)),
      stack_(read_edits(options.run)),
      base_(load_model(options.run, located_.folder, EditStack(), stop_, Transposes::kPacked)),
      model_(stack_.empty() ? base_ : base_->with_changes(stack_.changes())),
      hash_(*base_, stack_, stop_),
      defaults_(edit_defaults(model_->config(), options.method)) {
  give_back_freed_memory();
  refuse_mixtures(model_->config(), "edits are");
  auto& value = defaults_.value;
  value.steps = options.steps.value_or(value.steps);
  value.rate = options.rate.value_or(value.rate);
  value.decay = options.decay.value_or(value.decay);
  value.clamp = options.clamp.value_or(value.clamp);
  value.kl = options.kl.value_or(value.kl);
  value.engine = options.engine;
  defaults_.lambda = options.lambda.value_or(defaults_.lambda);
  if (!options.layers.empty()) defaults_.layers = options.layers;
  for (const auto layer : defaults_.layers) {
    if (layer < model_->config().layers) continue;
    throw Error("--layers: " + std::to_string(layer) + "; expected layers from 0 to " +
                std::to_string(model_->config().layers - 1) + ", those of this model");
  }
}

const std::string& EditSession::weights_sha256() {
  if (weights_sha256_.empty()) weights_sha256_ = hash_.get();
  return weights_sha256_;
}

bool EditSession::is_demo() const {
  return located_.name == kDemoName;
}

std::vector<std::int64_t> EditSession::layers_for(const EditTask* task) const {
  if (!options_.layer_by_trace || task == nullptr) return defaults_.layers;
  auto prompt = trace_prompt_of(*task, tokenizer_);
  prompt.target = true_ids_of(*task, tokenizer_);
  TraceOptions trace = trace_options(options_.run);
  trace.kinds = {Kind::kMlp};
  trace.positions.which = PositionRule::Which::kSubjectLast;
  trace.window = advised_window(model_->config().layers);
  trace.corruption = read_corruption(options_.run, *model_, tokenizer_).corruption;
  const auto clean = run_clean(*model_, prompt, trace, stop_);
  RunControl control;
  control.stop = stop_;
  control.memory = memory_for_rows(options_.run, *model_, least_memory(*model_, prompt, trace));
  const auto result = trace_sweep(*model_, prompt, trace, clean, control).trace;
  const auto& scores = result.grids.front().scores;
  const auto peak = std::max_element(scores.begin(), scores.end()) - scores.begin();
  spdlog::info(
      "--layer trace: {}, where restoring the MLP's output in {} layers at the subject's last token brings back most; "
      "where a fact is found and where it is best edited need not agree (arXiv 2301.04213)",
      peak, trace.window);
  return {peak};
}

void EditSession::prepare(std::span<const std::int64_t> layers) {
  if (!has_templates_) {
    const Stopwatch watch;
    if (options_.templates == "generated") {
      templates_ = generate_templates(options_.method, *base_, tokenizer_, options_.seed, stop_);
    } else if (options_.templates != "none") {
      templates_ = named("--templates", [&] { return read_templates(options_.templates); });
    }
    has_templates_ = true;
    seconds_of_templates_ = watch.seconds();
  }
  std::vector<std::int64_t> missing;
  for (const auto layer : layers) {
    if (!factors_.contains(layer)) missing.push_back(layer);
  }
  if (missing.empty() || options_.no_moment) return;
  const Stopwatch watch;
  collect(missing);
  seconds_of_moments_ += watch.seconds();
}

// Reads or collects second moments, and factors them.
void EditSession::collect(std::span<const std::int64_t> layers) {
  const auto& config = model_->config();
  const auto F = config.mlp_width;
  const auto take = [&](const SecondMoment& moment, const std::string& name) {
    if (moment.width() != F) {
      throw Error(name + ": a second moment of " + std::to_string(moment.width()) + " keys; this model's MLP has " +
                  std::to_string(F));
    }
    if (const auto note = few_tokens_note(moment)) spdlog::warn("{}", *note);
    const auto ridge = default_ridge(moment, config.activation);
    const auto& factor = factors_.emplace(moment.layer, MomentFactor(moment, ridge)).first->second;
    moments_[moment.layer] = {ridge, factor.condition()};
    spdlog::debug("layer {}: second moment of {} tokens, {:.3g} a dimension; condition {:.3g}{}", moment.layer,
                  moment.tokens, moment.tokens_by_width(), factor.condition(),
                  ridge > 0 ? fmt::format(", ridge {:.3g}", ridge) : "");
    moment_ = EditMoment{name, moment.text_sha256, moment.tokens};
  };
  if (options_.moments) {
    named("--moments", [&] {
      const auto file = MomentFile::open(*options_.moments);
      const auto& made_for = file.facts().weights_sha256;
      if (!made_for.empty() && made_for != weights_sha256()) {
        throw Error(label_of(*options_.moments) +
                    ": is of other weights than this model's; expected a file that "
                    "rometrace moments made for it");
      }
      for (const auto layer : layers) take(file.read(layer), label_of(*options_.moments));
      return 0;
    });
    return;
  }
  if (options_.texts.empty() && !is_demo()) {
    throw Error("an edit is kept from leaking by the second moment of the MLP's keys, of which " + located_.name +
                " has none here: --text FILE collects it of any text, " + std::to_string(50 * F) +
                " tokens are good (the largest cost of an edit; kept for the next one), --moments FILE reads it, "
                "--no-moment edits without");
  }
  const auto most = options_.text_tokens.value_or(default_moment_tokens(F));
  const auto text = options_.texts.empty()
                        ? moment_text_of(shipped_prompts(), "facts.json", tokenizer_, config.max_positions, most, stop_)
                        : named("--text", [&] {
                            return read_moment_text(options_.texts, tokenizer_, config.max_positions, most, stop_);
                          });
  MomentCache cache{default_cache_dir(), weights_sha256()};
  const bool known = std::all_of(layers.begin(), layers.end(),
                                 [&](auto layer) { return moment_is_cached(cache, *base_, text, layer); });
  if (!known) {
    const auto cost = moment_cost(config, text.tokens(), layers);
    spdlog::info("collecting the second moment of keys in {} {}: {} tokens of {}, {:.3g} TFLOP, {} of memory",
                 layers.size() == 1 ? "layer" : "layers", layers_text(layers), text.tokens(), text.name,
                 cost.flops / 1e12, size_text(cost.memory));
  }
  ProgressBar bar(options_.run.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  MomentControl control;
  control.progress = bar.callback();
  control.stop = stop_;
  cached_second_moments(*base_, text, layers, cache, control,
                        [&](const SecondMoment& moment) { take(moment, text.name); });
}

EditRequest EditSession::request_of(const EditTask& task) const {
  return make_request(tokenizer_, task.prompt, task.subject_span, spaced_object(task.target), templates_,
                      model_->config().max_positions);
}

std::vector<std::vector<std::int32_t>> EditSession::prompts_of(const EditTask& task) const {
  std::vector<std::vector<std::int32_t>> prompts = {ids_of(tokenizer_.encode_prompt(task.prompt))};
  for (const auto* list : {&task.paraphrases, &task.neighbours}) {
    for (const auto& prompt : *list) prompts.push_back(ids_of(tokenizer_.encode_prompt(prompt)));
  }
  return prompts;
}

void EditSession::refuse_if_said(const EditTask& task) const {
  if (options_.force) return;
  const auto target = ids_of(encode_answer(tokenizer_, spaced_object(task.target)));
  const std::vector<std::vector<std::int32_t>> prompt = {ids_of(tokenizer_.encode_prompt(task.prompt))};
  const auto tokens = static_cast<std::int64_t>(target.size());
  if (continue_greedily(*model_, prompt, tokens, {}, stop_).front() != target) return;
  throw EditRefused("said_already", "the model says " + in_quotes(spaced_object(task.target)) + " after " +
                                        in_quotes(task.prompt) +
                                        " already; nothing is to be edited (--force edits all the same)");
}

void EditSession::guard(const RankOneEdit& edit, const EditRequest& request) const {
  constexpr double kWarned = 0.5, kRefused = 0.25;
  if (edit.key_ratio >= kWarned) return;
  const auto ratio = ratio_text(edit.key_ratio);
  // Of many facts each has its ratio in its line.
  const auto level = options_.each ? spdlog::level::debug : spdlog::level::warn;
  if (options_.method == EditMethod::kRRome) {
    spdlog::log(
        level,
        "the subject {} has another key behind prefixes than alone (ratio {}): the bare prompt may not say the new "
        "object",
        in_quotes(request.subject), ratio);
    return;
  }
  if (edit.key_ratio >= kRefused || options_.force) {
    spdlog::log(
        level,
        "the subject {} has another key alone than behind prefixes (ratio {}): rome changes the weights much, and "
        "the edit may leak; --method r-rome does not",
        in_quotes(request.subject), ratio);
    return;
  }
  throw EditRefused(
      "key_ratio",
      "the subject " + in_quotes(request.subject) + " has another key alone than behind prefixes (ratio " + ratio +
          ", below " + ratio_text(kRefused) +
          "): rome would change the weights so much that the model breaks; use --method r-rome (--force edits all "
          "the same)");
}

MadeEdit EditSession::edit(std::span<const EditTask> tasks, std::span<const std::int64_t> layers,
                           std::int64_t greedy_tokens, const EditProgress& progress) {
  MadeEdit made;
  Stopwatch watch;
  MeasureOptions measured;
  measured.greedy_tokens = greedy_tokens;
  measured.ends = [this](std::int32_t id) { return id >= tokenizer_.size() || is_special_token(tokenizer_, id); };
  std::vector<EditRequest> requests;
  std::vector<std::vector<PromptMeasure>> before;
  for (const auto& task : tasks) {
    EditedFact fact;
    fact.request = request_of(task);
    fact.true_object = task.true_ids.empty() ? spaced_object(task.true_object) : task.true_object;
    fact.true_ids = true_ids_of(task, tokenizer_);
    before.push_back(
        measure_prompts(*model_, prompts_of(task), fact.request.target_ids, fact.true_ids, measured, stop_));
    requests.push_back(fact.request);
    made.facts.push_back(std::move(fact));
  }

  made.seconds_of_measures = watch.seconds();
  watch = Stopwatch();

  const auto add = [&](const LayerChange& change) { made.matrices.push_back(edited_matrix(*model_, change)); };
  const auto changed = [&] {
    std::vector<MatrixChange> changes;
    for (const auto& matrix : made.matrices) changes.push_back(matrix.change);
    return model_->with_changes(changes);
  };
  if (options_.method == EditMethod::kMemit) {
    const auto F = model_->config().mlp_width;
    const auto adjusted = [&](std::int64_t layer, const at::Tensor& keys) {
      const auto factor = factors_.find(layer);
      if (factor != factors_.end()) return factor->second.solve_with_keys(defaults_.lambda, keys);
      SecondMoment identity;
      identity.layer = layer;
      identity.mean = at::eye(F, at::kDouble);
      return MomentFactor(identity, 0).solve_with_keys(defaults_.lambda, keys);
    };
    const auto edited_so_far = [&](std::span<const LayerChange> changes) {
      add(changes.back());
      return changed();
    };
    auto edit = edit_memit(*model_, requests, layers, defaults_.value, adjusted, edited_so_far, stop_, progress);
    add(edit.changes.back());
    for (std::size_t i = 0; i < made.facts.size(); ++i) made.facts[i].value = std::move(edit.values[i]);
  } else {
    const auto layer = layers.front();
    MomentSolver solve;
    if (const auto factor = factors_.find(layer); factor != factors_.end()) {
      solve = [this, factor](const at::Tensor& key) {
        auto solved = factor->second.solve(key);
        if (!options_.each) factors_.erase(factor);  // this edit is the only one, and it is large
        return solved;
      };
    }
    auto edit =
        edit_rank_one(options_.method, *model_, requests.front(), layer, defaults_.value, solve, stop_, progress);
    guard(edit, requests.front());
    add(edit.change);
    made.facts.front().value = std::move(edit.value);
    made.facts.front().divisor = edit.divisor;
    made.facts.front().key_ratio = edit.key_ratio;
  }
  made.model = changed();
  made.seconds_of_value = watch.seconds();
  watch = Stopwatch();

  for (std::size_t i = 0; i < tasks.size(); ++i) {
    auto& fact = made.facts[i];
    const auto& task = tasks[i];
    const auto after =
        measure_prompts(*made.model, prompts_of(task), fact.request.target_ids, fact.true_ids, measured, stop_);
    std::size_t at = 0;
    const auto next = [&](const std::string& prompt) {
      MeasuredPrompt one{prompt, before[i][at], after[at]};
      ++at;
      return one;
    };
    fact.prompt = next(task.prompt);
    for (const auto& prompt : task.paraphrases) fact.paraphrases.push_back(next(prompt));
    const auto neighbours = at;
    for (const auto& prompt : task.neighbours) fact.neighbours.push_back(next(prompt));
    std::vector<std::vector<std::int32_t>> behind;
    for (const auto& text : std::span(fact.request.texts).subspan(1)) behind.push_back(text.token_ids);
    MeasureOptions scores_alone;
    scores_alone.greedy_tokens = 0;
    fact.behind = measure_prompts(*made.model, behind, fact.request.target_ids, fact.true_ids, scores_alone, stop_);
    fact.verdict = verdict_of(fact.prompt.after, fact.behind, std::span(before[i]).subspan(neighbours),
                              std::span(after).subspan(neighbours));
  }
  made.seconds_of_measures += watch.seconds();
  return made;
}

Edit EditSession::record(const MadeEdit& made, std::span<const std::int64_t> layers) const {
  Edit edit;
  edit.method = to_string(options_.method);
  edit.templates = templates_;
  if (options_.templates == "generated") edit.seed = options_.seed;
  const auto& value = defaults_.value;
  edit.hyperparameters = {{"layers", layers},
                          {"steps", value.steps},
                          {"rate", value.rate},
                          {"decay", value.decay},
                          {"clamp", value.clamp},
                          {"kl", value.kl},
                          {"low_enough", value.low_enough}};
  if (options_.method == EditMethod::kMemit) edit.hyperparameters["lambda"] = defaults_.lambda;
  if (const auto moment = moments_.find(layers.front()); moment != moments_.end()) {
    edit.hyperparameters["ridge"] = moment->second.ridge;
    edit.hyperparameters["condition"] = moment->second.condition;
  }
  edit.hyperparameters["dtype"] = options_.run.dtype;
  edit.hyperparameters["engine"] = to_string(value.engine);
  edit.moment = moment_;
  edit.model = model_record(located_.name, *model_, EditStack());
  edit.made_on = stack_.hashes();
  for (const auto& fact : made.facts) edit.requests.push_back(to_json(fact, tokenizer_));
  edit.matrices = made.matrices;
  edit.seconds = {{"templates", seconds_of_templates_},
                  {"moments", seconds_of_moments_},
                  {"value", made.seconds_of_value},
                  {"measures", made.seconds_of_measures}};
  return edit;
}

EditPerplexity EditSession::perplexity_of(const Decoder& before, const Decoder& after) const {
  constexpr std::size_t kPrompts = 200;
  EditPerplexity measured;
  std::vector<std::string> lines;
  if (options_.perplexity_text) {
    measured.text = label_of(*options_.perplexity_text);
    lines = named("--perplexity-text", [&] { return lines_of(*options_.perplexity_text); });
  } else if (is_demo()) {
    measured.text = "facts.json";
    const auto all = shipped_prompts();
    for (std::size_t i = 0; i < all.size(); i += std::max<std::size_t>(1, all.size() / kPrompts))
      lines.push_back(all[i]);
  } else {
    measured.text = "passage.txt";
    lines = lines_of(share_dir() / "passage.txt");
  }
  std::vector<std::vector<std::int32_t>> texts;
  for (const auto& line : lines) {
    auto ids = ids_of(tokenizer_.encode_prompt(line));
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(before.config().max_positions)));
    texts.push_back(std::move(ids));
  }
  measured.before = named(measured.text, [&] { return rometrace::perplexity(before, texts, stop_); });
  measured.after = rometrace::perplexity(after, texts, stop_);
  return measured;
}

}  // namespace rometrace::cli
