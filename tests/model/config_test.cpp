#include "rometrace/model/config.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::config_test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::message_of;
using testing::TemporaryFolder;

DecoderConfig read(const json& fields) {
  const TemporaryFolder folder;
  return read_config(folder.write("config.json", fields.dump()));
}

/// A good config with some fields changed.
json config_with(const json& changes) {
  json fields = {{"model_type", "gpt2"}, {"architectures", {"GPT2LMHeadModel"}}, {"n_embd", 64}, {"n_head", 4}};
  fields.update(changes);
  return fields;
}

TEST_CASE("angles go on beyond the positions that a model is made for, where transformers' do") {
  const json llama = {{"model_type", "llama"}, {"max_position_embeddings", 8}, {"num_hidden_layers", 2}};
  const auto longest = [](json values, const char* field = nullptr, const json& value = nullptr) {
    if (field != nullptr) values[field] = value;
    return read(values).longest_prompt();
  };
  constexpr std::int64_t kMost = 1 << 20;
  CHECK(read(llama).max_positions == 8);
  CHECK(longest(llama) == kMost);
  CHECK(longest(llama, "max_position_embeddings", 2 * kMost) == 2 * kMost);
  CHECK(longest(llama, "rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}) == kMost);
  CHECK(longest(llama, "rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}) == 8);
  CHECK(longest({{"model_type", "gpt_neox"}, {"max_position_embeddings", 8}}) == kMost);
  CHECK(longest({{"model_type", "gptj"}, {"n_positions", 8}}) == 8);
  CHECK(longest({{"model_type", "gpt2"}, {"n_positions", 8}}) == 8);
  CHECK(longest({{"model_type", "opt"}, {"max_position_embeddings", 8}}) == 8);
  CHECK(longest({{"model_type", "gpt_bigcode"}, {"n_positions", 8}}) == 8);
  CHECK(longest({{"model_type", "bloom"}, {"seq_length", 8}}) == kMost);
  CHECK(longest({{"model_type", "mpt"}, {"max_seq_len", 8}}) == 8);
  CHECK(longest({{"model_type", "falcon"}, {"max_position_embeddings", 8}}) == kMost);
  CHECK(longest({{"model_type", "falcon"}, {"max_position_embeddings", 8}, {"alibi", true}}) == kMost);
  // Of longrope the factors for long texts would be others for all of their tokens.
  const json factors = std::vector<double>(48, 1.5);
  const json scaling = {{"type", "longrope"}, {"short_factor", factors}, {"long_factor", factors}};
  const json phi3 = {{"model_type", "phi3"}, {"max_position_embeddings", 131072}};
  CHECK(longest(phi3) == kMost);
  CHECK(longest(phi3, "rope_scaling", scaling) == 4096);
}

TEST_CASE("fields that are absent have transformers' defaults") {
  const DecoderConfig config = read({{"model_type", "gpt2"}});
  CHECK(config.vocab_size == 50257);
  CHECK(config.max_positions == 1024);
  CHECK(config.width == 768);
  CHECK(config.layers == 12);
  CHECK(config.heads == 12);
  CHECK(config.mlp_width == 3072);
  CHECK(config.activation == Activation::kGeluTanh);
  CHECK(config.norm.epsilon == 1e-5);
  CHECK(config.attention_scale == 0.125);
  CHECK_FALSE(config.scale_attn_by_inverse_layer_idx);
  CHECK(config.tie_word_embeddings);
  CHECK(config.architecture == "GPT2LMHeadModel");
}

TEST_CASE("every field that changes the computation is read") {
  const DecoderConfig config = read({{"model_type", "gpt2"},
                                     {"architectures", {"GPT2Model"}},
                                     {"vocab_size", 100},
                                     {"n_positions", 32},
                                     {"n_embd", 48},
                                     {"n_layer", 3},
                                     {"n_head", 6},
                                     {"n_inner", 100},
                                     {"activation_function", "relu"},
                                     {"layer_norm_epsilon", 1e-12},
                                     {"scale_attn_weights", false},
                                     {"scale_attn_by_inverse_layer_idx", true},
                                     {"tie_word_embeddings", false}});
  CHECK(config.vocab_size == 100);
  CHECK(config.max_positions == 32);
  CHECK(config.width == 48);
  CHECK(config.layers == 3);
  CHECK(config.heads == 6);
  CHECK(config.mlp_width == 100);
  CHECK(config.activation == Activation::kRelu);
  CHECK(config.norm.epsilon == 1e-12);
  CHECK(config.attention_scale == 1);
  CHECK(config.scale_attn_by_inverse_layer_idx);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK(config.architecture == "GPT2Model");
}

TEST_CASE("the sizes' second names, and n_ctx where it is alone, are understood") {
  const DecoderConfig config = read({{"model_type", "gpt2"},
                                     {"hidden_size", 32},
                                     {"num_attention_heads", 2},
                                     {"num_hidden_layers", 5},
                                     {"max_position_embeddings", 9}});
  CHECK(config.width == 32);
  CHECK(config.heads == 2);
  CHECK(config.layers == 5);
  CHECK(config.max_positions == 9);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}}).max_positions == 7);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}, {"n_positions", 8}}).max_positions == 8);
  CHECK(read({{"model_type", "gpt2"}, {"n_ctx", 7}, {"max_position_embeddings", 8}}).max_positions == 8);
  CHECK(read({{"model_type", "gpt2"}, {"hidden_size", 24}, {"n_embd", 24}}).width == 24);
}

TEST_CASE("the MLP is four times as wide as the model where n_inner is null") {
  CHECK(read(config_with({{"n_inner", nullptr}})).mlp_width == 256);
  CHECK(read(config_with({{"n_inner", 10}})).mlp_width == 10);
}

TEST_CASE("an activation function goes by all of transformers' names for it") {
  const std::vector<std::pair<const char*, Activation>> cases = {{"gelu_new", Activation::kGeluTanh},
                                                                 {"gelu_fast", Activation::kGeluTanh},
                                                                 {"gelu_pytorch_tanh", Activation::kGeluTanh},
                                                                 {"gelu_python_tanh", Activation::kGeluTanh},
                                                                 {"gelu_accurate", Activation::kGeluTanh},
                                                                 {"gelu", Activation::kGeluErf},
                                                                 {"gelu_python", Activation::kGeluErf},
                                                                 {"quick_gelu", Activation::kGeluQuick},
                                                                 {"relu", Activation::kRelu},
                                                                 {"silu", Activation::kSilu},
                                                                 {"swish", Activation::kSilu},
                                                                 {"tanh", Activation::kTanh},
                                                                 {"sigmoid", Activation::kSigmoid}};
  for (const auto& [name, activation] : cases) {
    CAPTURE(name);
    CHECK(read(config_with({{"activation_function", name}})).activation == activation);
  }
}

TEST_CASE("fields that are known to change nothing in a forward pass are ignored") {
  const auto config = read(config_with({{"reorder_and_upcast_attn", true},
                                        {"resid_pdrop", 0.5},
                                        {"is_decoder", true},
                                        {"torch_dtype", "float16"},
                                        {"pruned_heads", json::object()},
                                        {"quantization_config", nullptr},
                                        {"add_cross_attention", false},
                                        {"task_specific_params", {{"text-generation", {{"do_sample", true}}}}}}));
  CHECK(config.remarks == std::vector<std::string>());
}

TEST_CASE("fields that are neither used nor known are named in one line") {
  const auto remarks = read(config_with({{"hidden_act", "mish"}, {"a\nb", 1}})).remarks;
  REQUIRE(remarks.size() == 1);
  CHECK(remarks.front() == Contains("config.json: these fields are passed over: a\\nb, hidden_act;"));
  CHECK(testing::is_one_line(remarks.front()));
  json many = config_with(json::object());
  for (int i = 0; i < 11; ++i) many["x" + std::to_string(i)] = i;
  CHECK(read(many).remarks.front() == Contains(" and 3 more;"));
  const auto of = [](const char* family, json changes) {
    changes["model_type"] = family;
    const auto said = read(changes).remarks;
    return said.empty() ? "" : said.front();
  };
  CHECK(of("llama", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"beta_fast", 2}}}}) ==
        Contains(": rope_scaling.beta_fast;"));
  CHECK(of("llama", {{"layer_types", json::array()}, {"sliding_window", 3}}) ==
        Contains(": layer_types, sliding_window;"));
  const json local = {{"rope_theta", 10.0}, {"x", 1}};
  CHECK(of("gemma3_text", {{"rope_parameters", {{"sliding_attention", local}}}}) ==
        Contains(": rope_parameters.sliding_attention.x;"));
  const json inner = {{"hidden_size", 2560}, {"model_type", "gemma3_text"}, {"use_cache", true}, {"x", 1}};
  CHECK(of("gemma3", {{"text_config", inner}, {"vision_config", json::object()}}) == Contains(": text_config.x;"));
}

TEST_CASE("a language model is known by model_type, or by its class where that is absent") {
  for (const char* name : {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model", "TFGPT2LMHeadModel"}) {
    CAPTURE(name);
    CHECK_NOTHROW(read({{"architectures", {name}}}));
  }
  CHECK_NOTHROW(read({{"model_type", "gpt2"}, {"architectures", nullptr}}));
  CHECK_NOTHROW(read({{"model_type", "gpt2"}, {"architectures", json::array()}}));
}

TEST_CASE("a field that cannot be honoured is refused by name, with the value found") {
  const std::vector<std::pair<json, const char*>> cases = {
      {{{"model_type", "deepseek_v3"}}, "model_type is \"deepseek_v3\" (a mixture of experts); only decoders"},
      {{{"model_type", "glm4_moe"}}, "model_type is \"glm4_moe\" (a mixture of experts); only"},
      {{{"model_type", "t5"}}, "model_type is \"t5\" (an encoder-decoder); only decoders"},
      {{{"model_type", "bert"}}, "model_type is \"bert\" (an encoder); only decoders"},
      {{{"model_type", "rwkv"}}, "model_type is \"rwkv\"; only decoders of these families can be traced: gpt2, "},
      {{{"model_type", 2}}, "model_type is 2; only decoders"},
      {{{"model_type", nullptr}, {"architectures", {"BertModel"}}}, "model_type is absent; only decoders"},
      {{{"is_encoder_decoder", true}}, "is_encoder_decoder is true; expected false"},
      {{{"num_local_experts", 8}}, "num_local_experts is 8; expected none: a mixture of experts"},
      {{{"architectures", {"GPT2ForSequenceClassification"}}}, "GPT2ForSequenceClassification\"]; expected a language"},
      {{{"architectures", {"GPT2LMHeadCustomModel"}}}, "architectures is [\"GPT2LMHeadCustomModel\"]; expected"},
      {{{"architectures", "GPT2LMHeadModel"}}, "architectures is \"GPT2LMHeadModel\"; expected a list"},
      {{{"architectures", {1}}}, "architectures is [1]; expected one class name"},
      {{{"n_head", 7}}, "config.json: n_head is 7, which does not divide n_embd 64"},
      {{{"n_head", 0}}, "n_head is 0; expected a whole number from 1 to 268435456"},
      {{{"n_embd", -64}}, "n_embd is -64; expected a whole number from 1"},
      {{{"n_embd", 64.0}}, "n_embd is 64.0; expected a whole number"},
      {{{"n_embd", "64"}}, "n_embd is \"64\"; expected a whole number"},
      {{{"n_embd", nullptr}}, "n_embd is null; expected a whole number"},
      {{{"n_embd", true}}, "n_embd is true; expected a whole number"},
      {{{"n_embd", 4294967296}}, "n_embd is 4294967296; expected a whole number"},
      {{{"n_embd", 18446744073709551615U}}, "n_embd is 18446744073709551615; expected"},
      {{{"n_layer", 10001}}, "n_layer is 10001; expected a whole number from 1 to 10000"},
      {{{"n_layer", 0}}, "n_layer is 0; expected"},
      {{{"vocab_size", 0}}, "vocab_size is 0; expected"},
      {{{"n_positions", 1e30}}, "n_positions is 1e+30; expected"},
      {{{"n_inner", 0}}, "n_inner is 0; expected"},
      {{{"n_ctx", "x"}}, "n_ctx is \"x\"; expected"},
      {{{"hidden_size", 32}}, "hidden_size is 32, but n_embd is 64: two names of one size"},
      {{{"layer_norm_epsilon", 0}}, "layer_norm_epsilon is 0; expected a number above 0"},
      {{{"layer_norm_epsilon", -1e-5}}, "layer_norm_epsilon is -1e-05; expected"},
      {{{"layer_norm_epsilon", "1e-5"}}, "layer_norm_epsilon is \"1e-5\"; expected"},
      {{{"activation_function", "gelu_10"}}, "activation_function is \"gelu_10\"; expected one of gelu_new, gelu_py"},
      {{{"activation_function", nullptr}}, "activation_function is null; expected a string"},
      {{{"scale_attn_weights", 1}}, "scale_attn_weights is 1; expected true or false"},
      {{{"tie_word_embeddings", "yes"}}, "tie_word_embeddings is \"yes\"; expected true or false"},
      {{{"add_cross_attention", true}}, "add_cross_attention is true; expected false"},
      {{{"pruned_heads", {{"0", {1}}}}}, "pruned_heads is {\"0\":[1]}; expected none"},
      {{{"per_layer_config", {{"1", {{"skip", true}}}}}}, "per_layer_config is {\"1\":{\"skip\":true}}; expected none"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantization_config is {\"bits\":4}; expected none"},
      {{{"transformers_weights", "other.safetensors"}}, "transformers_weights is \"other.safetensors\"; expected none"},
  };
  for (const auto& [changes, expected] : cases) {
    CAPTURE(expected);
    const std::string message = message_of<Error>([&] { read(config_with(changes)); });
    CHECK(message == Contains(expected));
    CHECK(testing::is_one_line(message));
  }
}

TEST_CASE("a config.json that is not an object of fields is refused") {
  const TemporaryFolder folder;
  for (const char* content : {"[]", "3", "null", "\"gpt2\""}) {
    const auto file = folder.write("config.json", content);
    CHECK(message_of<Error>([&] { read_config(file); }) == Contains("config.json: expected an object of fields"));
  }
  CHECK(message_of<Error>([&] { read_config(folder.path() / "none.json"); }) == Contains("none.json: no such file"));
  CHECK(message_of<Error>([&] { read_config(folder.write("c", "{,}")); }) == Contains("line 1, column 2: not JSON"));
}

TEST_CASE("a trained model's config.json gives its shape") {
  const std::filesystem::path file = ROMETRACE_SOURCE_DIR "/../shared/models/gpt2-lyrics/config.json";
  if (testing::is_absent(file)) return;
  const DecoderConfig config = read_config(file);
  CHECK(config.vocab_size == 1000);
  CHECK(config.max_positions == 64);
  CHECK(config.width == 128);
  CHECK(config.layers == 4);
  CHECK(config.heads == 4);
  CHECK(config.mlp_width == 512);
  const DecoderConfig other = read_config(ROMETRACE_SOURCE_DIR "/../shared/models/stories260K-hf/config.json");
  CHECK(to_string(other.family) == "llama");
  CHECK(other.layers == 5);
  CHECK(other.heads == 8);
  CHECK(other.kv_heads == 4);
  CHECK(other.head_width == 8);
}

// ---- Other families: what the goldens of whole models cannot tell apart, or do not reach ----

json fields_of(const char* model_type, const json& changes = json::object()) {
  json fields = {{"model_type", model_type}};
  fields.update(changes);
  return fields;
}

TEST_CASE("the sizes of a family's first checkpoint are its defaults") {
  struct Sizes {
    const char* family;
    std::int64_t layers, width, heads, kv_heads, head_width, mlp_width, vocab_size;
  };
  const std::vector<Sizes> cases = {
      {"gptj", 28, 4096, 16, 16, 256, 16384, 50400},
      {"gpt_neo", 24, 2048, 16, 16, 128, 8192, 50257},
      {"gpt_neox", 44, 6144, 64, 64, 96, 24576, 50432},
      {"opt", 12, 768, 12, 12, 64, 3072, 50272},
      {"llama", 32, 4096, 32, 32, 128, 11008, 32000},
      {"mistral", 32, 4096, 32, 8, 128, 14336, 32000},
      {"qwen2", 32, 4096, 32, 32, 128, 22016, 151936},
      {"qwen3", 32, 4096, 32, 32, 128, 22016, 151936},
      {"gemma", 28, 3072, 16, 16, 256, 24576, 256000},
      {"gemma2", 26, 2304, 8, 4, 256, 9216, 256000},
      {"gemma3_text", 26, 2304, 8, 4, 256, 9216, 262208},
      {"gpt_bigcode", 12, 768, 12, 1, 64, 3072, 50257},
      {"bloom", 2, 64, 8, 8, 8, 256, 250880},
      {"mpt", 24, 2048, 16, 16, 128, 8192, 50368},
      {"falcon", 32, 4544, 71, 1, 64, 18176, 65024},
      {"phi", 24, 2048, 32, 32, 64, 8192, 51200},
      {"phi3", 32, 3072, 32, 32, 96, 8192, 32064},
      {"olmo", 32, 4096, 32, 32, 128, 11008, 50304},
      {"olmo2", 32, 4096, 32, 32, 128, 11008, 50304},
      {"olmo3", 32, 4096, 32, 32, 128, 11008, 50304},
      {"stablelm", 32, 2560, 32, 32, 80, 6912, 50304},
      {"starcoder2", 30, 3072, 24, 2, 128, 12288, 49152},
      {"smollm3", 36, 2048, 16, 4, 128, 11008, 128256},
      {"granite", 32, 4096, 32, 32, 128, 11008, 32000},
      {"cohere", 40, 8192, 64, 64, 128, 22528, 256000},
      {"cohere2", 40, 8192, 64, 64, 128, 22528, 256000},
      {"glm4", 40, 4096, 32, 2, 128, 13696, 151552},
      {"nemotron", 32, 6144, 48, 48, 128, 24576, 256000},
      {"mixtral", 32, 4096, 32, 8, 128, 14336, 32000},
      {"qwen2_moe", 24, 2048, 16, 16, 128, 5632, 151936},
      {"qwen3_moe", 24, 2048, 32, 4, 64, 6144, 151936},
      {"olmoe", 16, 2048, 16, 16, 128, 2048, 50304},
      {"granitemoe", 32, 4096, 32, 32, 128, 11008, 32000},
      {"phimoe", 32, 4096, 32, 8, 128, 6400, 32064},
      {"gpt_oss", 36, 2880, 64, 8, 64, 2880, 201088},
  };
  for (const auto& sizes : cases) {
    CAPTURE(sizes.family);
    const auto config = read(fields_of(sizes.family));
    CHECK(to_string(config.family) == sizes.family);
    CHECK(config.layers == sizes.layers);
    CHECK(config.width == sizes.width);
    CHECK(config.embedding_width == sizes.width);
    CHECK(config.heads == sizes.heads);
    CHECK(config.kv_heads == sizes.kv_heads);
    CHECK(config.head_width == sizes.head_width);
    CHECK(config.mlp_width == sizes.mlp_width);
    CHECK(config.vocab_size == sizes.vocab_size);
    CHECK(config.attention.size() == static_cast<std::size_t>(sizes.layers));
  }
}

TEST_CASE("mixtures without fields have the experts of transformers' configurations") {
  using Weights = Experts::Weights;
  const auto of = [](const char* family) { return read(fields_of(family)).experts.value(); };
  const auto is = [](const Experts& experts, std::int64_t count, std::int64_t chosen, std::int64_t width) {
    return experts.count == count && experts.chosen == chosen && experts.width == width;
  };
  CHECK(is(of("mixtral"), 8, 2, 14336));
  CHECK(of("mixtral").sums_to_one);
  CHECK(is(of("qwen2_moe"), 60, 4, 1408));
  CHECK(of("qwen2_moe").shared_width == 5632);
  CHECK_FALSE(of("qwen2_moe").sums_to_one);
  CHECK(is(of("qwen3_moe"), 128, 8, 768));
  CHECK(of("qwen3_moe").shared_width == 0);
  CHECK(is(of("olmoe"), 64, 8, 2048));
  CHECK(is(of("granitemoe"), 8, 2, 11008));
  CHECK(of("granitemoe").weights == Weights::kOfChosen);
  CHECK(is(of("phimoe"), 16, 2, 6400));
  CHECK(of("phimoe").weights == Weights::kOneByOne);
  CHECK(of("phimoe").nearness == 0.02);
  CHECK(is(of("gpt_oss"), 128, 4, 2880));
  CHECK(of("gpt_oss").router_bias);
}

TEST_CASE("layers that are dense among mixtures are those of the list and those off the step") {
  auto fields = fields_of("qwen3_moe");
  fields["num_hidden_layers"] = 6;
  fields["mlp_only_layers"] = {1, 9};
  fields["decoder_sparse_step"] = 2;
  const auto config = read(fields);
  CHECK(config.dense_layers == std::vector<std::int64_t>{0, 1, 2, 4});
  CHECK(config.is_mixture(3));
  CHECK_FALSE(config.is_mixture(1));
  fields["decoder_sparse_step"] = 7;
  CHECK_FALSE(read(fields).experts);
}

std::vector<std::int64_t> windows(const DecoderConfig& config) {
  std::vector<std::int64_t> all;
  for (const auto& layer : config.attention) all.push_back(layer.window);
  return all;
}

TEST_CASE("the layers that see a window are those that transformers gives one") {
  using Windows = std::vector<std::int64_t>;
  const json four = {{"num_hidden_layers", 4}, {"sliding_window", 9}};
  const auto with = [&](json changes) {
    json fields = four;
    fields.update(changes);
    return fields;
  };
  CHECK(windows(read(fields_of("mistral", four))) == Windows{9, 9, 9, 9});
  CHECK(windows(read(fields_of("mistral", with({{"sliding_window", nullptr}})))) == Windows{0, 0, 0, 0});
  CHECK(windows(read(fields_of("mistral", {{"num_hidden_layers", 1}}))) == Windows{4096});
  const json alternating = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
  CHECK(windows(read(fields_of("mistral", with({{"layer_types", alternating}})))) == Windows{0, 9, 0, 9});
  CHECK(windows(read(fields_of("mistral", with({{"layer_types", nullptr}})))) == Windows{9, 9, 9, 9});
  CHECK(windows(read(fields_of("qwen2", four))) == Windows{0, 0, 0, 0});
  CHECK(windows(read(fields_of("qwen2", with({{"use_sliding_window", true}, {"max_window_layers", 3}})))) ==
        Windows{0, 0, 0, 9});
  CHECK(windows(read(fields_of("gemma2", four))) == Windows{9, 0, 9, 0});
  CHECK(windows(read(fields_of("gemma3_text", with({{"sliding_window_pattern", 2}})))) == Windows{9, 0, 9, 0});
  const json types = {"full_attention", "sliding_attention", "full_attention", "full_attention"};
  CHECK(windows(read(fields_of("gemma3_text", with({{"layer_types", types}})))) == Windows{0, 9, 0, 0});
  const json listed = {{"num_layers", 2}, {"attention_layers", {"local", "global"}}, {"window_size", 5}};
  CHECK(windows(read(fields_of("gpt_neo", listed))) == Windows{5, 0});
  const json neo = {{"num_layers", 3}, {"attention_types", {{{"global"}, 1}, {{"local"}, 2}}}, {"window_size", 5}};
  CHECK(windows(read(fields_of("gpt_neo", neo))) == Windows{0, 5, 5});
  CHECK(windows(read(fields_of("olmo3", four))) == Windows{9, 9, 9, 0});
  CHECK(windows(read(fields_of("starcoder2", four))) == Windows{9, 9, 9, 9});
  CHECK(windows(read(fields_of("phi3", {{"num_hidden_layers", 1}}))) == Windows{0});
  CHECK(windows(read(fields_of("cohere2", with({{"sliding_window_pattern", 3}})))) == Windows{9, 9, 0, 9});
  CHECK(windows(read(fields_of("smollm3", four))) == Windows{0, 0, 0, 0});
  CHECK(windows(read(fields_of("smollm3", with({{"use_sliding_window", true}})))) == Windows{0, 0, 0, 9});
}

TEST_CASE("the layers whose queries and keys turn are those that transformers turns") {
  using Turns = std::vector<bool>;
  const auto turns = [](const char* family, json changes) {
    changes["num_hidden_layers"] = 4;
    Turns all;
    for (const auto& layer : read(fields_of(family, changes)).attention) all.push_back(layer.turns);
    return all;
  };
  CHECK(turns("llama", json::object()) == Turns{true, true, true, true});
  CHECK(turns("smollm3", json::object()) == Turns{true, true, true, false});
  CHECK(turns("smollm3", {{"no_rope_layer_interval", 2}}) == Turns{true, false, true, false});
  const json listed = {{"no_rope_layers", {0, 1, 1, 0}}, {"no_rope_layer_interval", 2}};
  CHECK(turns("smollm3", listed) == Turns{false, true, true, false});
  CHECK(turns("cohere2", json::object()) == Turns{true, true, true, false});
  CHECK(turns("cohere2", {{"sliding_window_pattern", 2}}) == Turns{true, false, true, false});
}

TEST_CASE("rotary positions are read from the fields of older and of newer files alike") {
  const auto rotary = [](const json& changes) { return read(fields_of("llama", changes)).rotary.at(0); };
  CHECK(rotary(json::object()).theta == 10000);
  CHECK(rotary({{"rope_theta", 5e5}}) ==
        rotary({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}));
  const json llama3 = {
      {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  json older = llama3, newer = llama3;
  older["rope_type"] = newer["rope_type"] = "llama3";
  newer["rope_theta"] = 5e5;
  const auto scaled = rotary({{"rope_theta", 5e5}, {"rope_scaling", older}});
  CHECK(scaled == rotary({{"rope_parameters", newer}}));
  CHECK(scaled.scaling == Rotary::Scaling::kLlama3);
  CHECK(scaled.factor == 8);
  CHECK(rotary({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}).scaling == Rotary::Scaling::kLinear);
  const auto yarn =
      rotary({{"max_position_embeddings", 4096},
              {"rope_scaling", {{"type", "yarn"}, {"factor", nullptr}, {"original_max_position_embeddings", 1024}}}});
  CHECK(yarn.factor == 4);
  CHECK(yarn.magnitude == doctest::Approx(0.1 * std::log(4.0) + 1));
  CHECK(rotary({{"rope_scaling", json::object()}, {"rope_parameters", newer}}) == scaled);
  CHECK(rotary({{"rope_scaling", older}, {"rope_theta", 5e5}, {"rope_parameters", {{"rope_theta", 7.0}}}}) == scaled);
  CHECK(read(fields_of("gpt_neox")).rotary.at(0).width == 24);
  CHECK(read(fields_of("gpt_neox", {{"rotary_pct", 1.0}, {"rotary_emb_base", 500}})).rotary.at(0).theta == 500);
  const json outside = {{"original_max_position_embeddings", 2048}, {"rope_scaling", older}};
  CHECK(rotary(outside).original_positions == 2048);
  CHECK(rotary({{"rope_scaling", older}}).original_positions == 8192);
  const auto gemma3 = read(fields_of("gemma3_text", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}));
  CHECK(gemma3.rotary.at(0).theta == 1e6);
  CHECK(gemma3.rotary.at(0).factor == 8);
  CHECK(gemma3.rotary.at(1).theta == 1e4);
  CHECK(gemma3.rotary.at(1).factor == 1);
  CHECK(gemma3.attention.at(4).rotary == 1);
  CHECK(gemma3.attention.at(5).rotary == 0);
}

TEST_CASE("Gemma 3's config with pictures gives its decoder's") {
  const auto config = read({{"model_type", "gemma3"},
                            {"architectures", {"Gemma3ForConditionalGeneration"}},
                            {"vision_config", {{"hidden_size", 1152}}},
                            {"text_config", {{"hidden_size", 2560}, {"num_hidden_layers", 34}}}});
  CHECK(config.width == 2560);
  CHECK(config.layers == 34);
  CHECK(config.tie_word_embeddings);
  const auto untied = read({{"model_type", "gemma3"}, {"tie_word_embeddings", false}, {"text_config", json::object()}});
  CHECK_FALSE(untied.tie_word_embeddings);
  CHECK(message_of<Error>([] {
          read({{"model_type", "gemma3"}, {"text_config", {{"hidden_size", 0}}}});
        }) == Contains("text_config.hidden_size is 0; expected"));
}

TEST_CASE("what a family's checkpoints may say and is not computed is refused by name") {
  struct Refusal {
    const char* family;
    json changes;
    const char* expected;
  };
  const std::vector<Refusal> cases = {
      {"llama", {{"architectures", {"LlamaForSequenceClassification"}}}, "expected a language model: LlamaForCausalLM"},
      {"llama", {{"rope_scaling", {{"type", "ntk"}}}}, "rope_scaling.type is \"ntk\"; expected default"},
      {"llama",
       {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0, 2.0}}}}},
       "rope_scaling.type is \"longrope\"; expected short_factor beside it, a list of 64 numbers above 0"},
      {"phi3",
       {{"rope_scaling", {{"type", "linear"}}}},
       "rope_scaling.type is \"linear\"; expected default or longrope"},
      {"phi", {{"partial_rotary_factor", 1.5}}, "the rotary part of a head is 1.5"},
      {"bloom", {{"apply_residual_connection_post_layernorm", true}}, "post_layernorm is true; expected false"},
      {"bloom", {{"slow_but_exact", true}, {"pretraining_tp", 4}}, "slow_but_exact is true; expected false"},
      {"mpt", {{"attn_config", {{"alibi", false}}}}, "attn_config.alibi is false; expected true"},
      {"mpt", {{"attn_config", {{"qk_ln", true}}}}, "attn_config.qk_ln is true; expected false"},
      {"mpt", {{"logit_scale", "inv_sqrt_d_model"}}, "logit_scale is \"inv_sqrt_d_model\"; expected null"},
      {"mpt", {{"no_bias", false}}, "no_bias is false; expected true, as transformers computes it"},
      {"falcon",
       {{"new_decoder_architecture", true}, {"parallel_attn", false}},
       "parallel_attn is false; expected true"},
      {"falcon", {{"num_ln_in_parallel_attn", 2}}, "num_ln_in_parallel_attn is 2; expected 1"},
      {"falcon", {{"multi_query", false}, {"num_kv_heads", 1}}, "num_kv_heads is 1; expected num_attention_heads"},
      {"falcon", {{"new_decoder_architecture", true}, {"num_kv_heads", 8}}, "num_kv_heads is 8, which does not divide"},
      {"stablelm", {{"head_dim", 64}}, "head_dim is 64; expected none, or hidden_size / num_attention_heads"},
      {"smollm3", {{"no_rope_layers", {1, 0}}}, "no_rope_layers is [1,0]; expected a list of 0"},
      {"granite", {{"residual_multiplier", 0}}, "residual_multiplier is 0; expected a number above 0"},
      {"cohere2", {{"sliding_window", nullptr}}, "sliding_window is null; expected a number of positions"},
      {"olmo3",
       {{"rope_parameters", {{"rope_type", "default"}}}},
       "rope_parameters.rope_type is \"default\"; expected none here, but in full_attention"},
      {"llama", {{"rope_scaling", {{"type", "linear"}}}}, "rotary positions of type linear have no factor"},
      {"llama", {{"rope_scaling", {{"type", "yarn"}}}}, "rotary positions of type yarn have no factor"},
      {"llama", {{"rope_scaling", 2}}, "rope_scaling is 2; expected an object"},
      {"llama", {{"num_key_value_heads", 5}}, "num_key_value_heads is 5, which does not divide num_attention_heads 32"},
      {"llama", {{"num_attention_heads", 33}}, "num_attention_heads is 33, which does not divide hidden_size 4096"},
      {"llama", {{"head_dim", 7}}, "rotary positions would turn 7 numbers of heads of width 7; expected an even"},
      {"llama", {{"hidden_act", "mish"}}, "hidden_act is \"mish\"; expected one of"},
      {"llama", {{"rms_norm_eps", -1}}, "rms_norm_eps is -1; expected a number above 0"},
      {"gptj", {{"rotary_dim", 300}}, "rotary positions would turn 300 numbers of heads of width 256"},
      {"gpt_neo", {{"num_layers", 3}}, "attention_types is [[[\"global\",\"local\"],12]]; expected"},
      {"gpt_neo", {{"attention_layers", {"local"}}}, "attention_layers is [\"local\"]; expected \"global\" or"},
      {"gpt_neo", {{"attention_types", {{{"banded"}, 24}}}}, "attention_types is [[[\"banded\"],24]]; expected"},
      {"gemma", {{"use_bidirectional_attention", true}}, "use_bidirectional_attention is true; expected false"},
      {"gemma3_text", {{"attn_logit_softcapping", 50.0}}, "attn_logit_softcapping is 50.0; expected null"},
      {"qwen2", {{"layer_types", {"full_attention"}}}, "layer_types is [\"full_attention\"]; expected a list"},
      {"qwen2", {{"num_experts", 60}}, "num_experts is 60; expected none: a mixture of experts"},
      {"mixtral", {{"num_experts_per_tok", 9}}, "num_experts_per_tok is 9; expected at most 8, as there are experts"},
      {"qwen3_moe", {{"mlp_only_layers", 3}}, "mlp_only_layers is 3; expected a list of layers"},
      {"qwen2_moe", {{"mlp_only_layers", {0.5}}}, "mlp_only_layers is [0.5]; expected a list of layers"},
      {"olmoe", {{"clip_qkv", 8.0}}, "clip_qkv is 8.0; expected null"},
      {"phimoe", {{"num_experts_per_tok", 3}}, "num_experts_per_tok is 3; expected 2"},
      {"phimoe",
       {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}}},
       "rope_scaling.rope_type is \"yarn\"; expected default or longrope"},
      {"gpt_oss", {{"swiglu_alpha", 1.5}}, "swiglu_alpha is 1.5; expected 1.702"},
      {"qwen2",
       {{"use_sliding_window", true}, {"max_window_layers", -1}},
       "max_window_layers is -1; expected a whole number from 0"},
      {"llama",
       {{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}},
       "rope_parameters.partial_rotary_factor is 0.5; expected 1"},
      {"gemma3_text",
       {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 8.0}}}},
       "rope_parameters.rope_type is \"linear\"; expected none here, but in full_attention"},
      {"gemma3_text",
       {{"rope_scaling", {{"type", "linear"}, {"factor", 8.0}}}},
       "rope_scaling.type is \"linear\"; expected none, but rope_type"},
      {"gemma3_text",
       {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}}},
       "config.json: rope_scaling.factor is 0; expected a number above 0"},
      {"qwen2",
       {{"rope_parameters", {{"full_attention", {{"rope_theta", 10.0}}}}}},
       "rope_parameters.full_attention is {\"rope_theta\":10.0}; expected none"},
      {"llama", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is 0.5; expected 1: llama turns whole heads"},
      {"llama", {{"is_causal", false}}, "is_causal is false; expected true"},
      {"gpt_neox", {{"head_dim", 64}}, "head_dim is 64; expected none, or hidden_size / num_attention_heads"},
      {"mistral",
       {{"num_hidden_layers", 1}, {"sliding_window", nullptr}, {"layer_types", {"sliding_attention"}}},
       "layer_types is [\"sliding_attention\"]; expected \"full_attention\" only"},
      {"qwen3",
       {{"num_hidden_layers", 1}, {"layer_types", {"sliding_attention"}}},
       "layer_types is [\"sliding_attention\"]; expected \"full_attention\" only"},
      {"opt", {{"word_embed_proj_dim", 0}}, "word_embed_proj_dim is 0; expected a whole number"},
  };
  for (const auto& [family, changes, expected] : cases) {
    CAPTURE(expected);
    const std::string message = message_of<Error>([&] { read(fields_of(family, changes)); });
    CHECK(message == Contains(expected));
    CHECK(testing::is_one_line(message));
  }
}

}  // namespace
}  // namespace rometrace::config_test
