#include "model/gguf.hpp"

#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "gguf_bytes.hpp"
#include "model/gguf_config.hpp"
#include "model/gguf_types.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/checkpoint.hpp"
#include "text/gguf_header.hpp"

namespace rometrace::gguf_test {
namespace {

using testing::bytes_of;
using testing::Contains;
using testing::GgufBytes;
using testing::little_endian_bytes;
using testing::message_of;
using testing::TemporaryFolder;

constexpr std::uint32_t kF32 = 0, kQ8_0 = 8;

std::string refusal(const std::string& content) {
  const TemporaryFolder folder;
  const auto file = folder.write("m.gguf", content);
  std::string message = message_of<Error>([&] { GgufFile::open(file); });
  CHECK(testing::is_one_line(message));
  return message;
}

const std::string kFour = bytes_of<float>({1.5F, -2.0F, 0.25F, 4.0F});

GgufBytes small() {
  GgufBytes file;
  file.text("general.architecture", "llama").number("llama.block_count", 2);
  return file.tensor("m", {2, 2}, kF32, kFour).tensor("v", {4}, kF32, kFour);
}

TEST_CASE("values and tensors come back, the slowest dimension first") {
  const TemporaryFolder folder;
  auto bytes = small();
  bytes.flag("yes", true).real("pi", 3.5F).texts("words", {"a", "", "b c"}).numbers("some", {-1, 7}).reals("x", {2.5F});
  bytes.value("large", 10, little_endian_bytes(1ULL << 40U, 8)).value("below", 1, "\xFE");
  for (const std::uint32_t version : {2U, 3U}) {
    bytes.version = version;
    const auto file = GgufFile::open(folder.write("m.gguf", bytes.bytes()));
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensors()[0].name == "m");
    CHECK(file.tensors()[0].dtype == "F32");
    CHECK(file.tensors()[0].shape == std::vector<std::int64_t>{2, 2});
    CHECK(std::string(reinterpret_cast<const char*>(file.tensors()[1].bytes.data()), 16) == kFour);
    const auto& header = file.header();
    CHECK(header.text("general.architecture") == "llama");
    CHECK(header.whole_number("llama.block_count") == 2);
    CHECK(header.whole_number("large") == std::int64_t{1} << 40);
    CHECK(header.whole_number("below") == -2);
    CHECK(header.flag("yes") == true);
    CHECK(header.number("pi") == 3.5);
    CHECK(header.number("llama.block_count") == 2.0);
    CHECK(header.texts("words") == std::vector<std::string_view>{"a", "", "b c"});
    CHECK(header.whole_numbers("some") == std::vector<std::int64_t>{-1, 7});
    CHECK(header.numbers("x") == std::vector<float>{2.5F});
    CHECK(!header.text("nothing"));
    CHECK(message_of<Error>([&] { header.text("pi"); }) == Contains("m.gguf: pi is 3.5; expected a text"));
    CHECK(message_of<Error>([&] { header.whole_number("words"); }) ==
          Contains("words is a list of 3; expected a whole"));
  }
}

TEST_CASE("a file that ends anywhere is refused, in one line") {
  const auto bytes = small().texts("words", {"a", "bc"}).bytes();
  for (std::size_t length = 1; length < bytes.size(); ++length) {
    CAPTURE(length);
    refusal(bytes.substr(0, length));
  }
}

TEST_CASE("other formats and versions are named") {
  CHECK(refusal("PK\x03\x04 and more of it") == Contains("is no GGUF file: it begins with \"PK"));
  CHECK(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n") == Contains("Git LFS"));
  auto old = small();
  old.version = 1;
  CHECK(refusal(old.bytes()) == Contains("is of version 1 of GGUF; expected 2 or 3"));
  auto turned = small();
  turned.version = 3U << 24U;
  CHECK(refusal(turned.bytes()) == Contains("is a big-endian GGUF file"));
}

TEST_CASE("numbers that lie are refused before they are used") {
  constexpr auto kHuge = std::uint64_t{1} << 62U;
  auto values = small(), tensors = small();
  values.value_count = kHuge;
  CHECK(refusal(values.bytes()) == Contains("says that it has 4611686018427387904 values, and only"));
  tensors.tensor_count = kHuge;
  CHECK(refusal(tensors.bytes()) == Contains("says that it has 4611686018427387904 tensors"));
  CHECK(refusal(small().value("key", 8, little_endian_bytes(kHuge, 8)).bytes()) ==
        Contains("cut short: value \"key\" needs 4611686018427387904 bytes"));
  CHECK(refusal(small().list("key", 12, kHuge, "").bytes()) ==
        Contains("value \"key\" has 4611686018427387904 elements"));
  CHECK(refusal(small().list("key", 8, kHuge, "").bytes()) == Contains("cut short: value \"key\" needs"));
  CHECK(refusal(small().value("key", 13, "1234").bytes()) == Contains("value \"key\" is of type 13"));
  CHECK(refusal(small().list("key", 9, 1, "1234").bytes()) == Contains("value \"key\" is a list of lists"));
  CHECK(refusal(small().number("llama.block_count", 3).bytes()) ==
        Contains("value \"llama.block_count\" is there twice"));
  for (const std::uint32_t alignment : {0U, 3U, 48U, 1U << 31U}) {
    CAPTURE(alignment);
    CHECK(refusal(small().number("general.alignment", alignment).bytes()) == Contains("expected a power of two"));
  }
  CHECK(refusal(small().text("general.alignment", "32").bytes()) == Contains("expected a whole number"));
}

TEST_CASE("tensors that lie are refused") {
  CHECK(refusal(small().entry("m", {2}, kF32, 0).bytes()) == Contains("tensor \"m\" is there twice"));
  CHECK(refusal(small().entry("t", {2, 2, 1, 1, 1}, kF32, 64).bytes()) ==
        Contains("has 5 dimensions; expected 0 to 4"));
  CHECK(refusal(small().entry("t", {0}, kF32, 64).bytes()) == Contains("has a dimension of 0"));
  CHECK(refusal(small().entry("t", {1ULL << 63U}, kF32, 64).bytes()) ==
        Contains("has a dimension of 9223372036854775808"));
  CHECK(refusal(small().entry("t", {1ULL << 40U, 1ULL << 40U}, kF32, 32).bytes()) == Contains("larger than any file"));
  CHECK(refusal(small().entry("t", {1ULL << 32U, 1ULL << 31U}, kF32, 32).bytes()) == Contains("larger than any file"));
  CHECK(refusal(small().entry("t", {4}, kF32, 8).bytes()) ==
        Contains("begins at byte 8 of the data; expected a multiple of 32"));
  CHECK(refusal(small().entry("t", {4}, kF32, 1ULL << 62U).bytes()) == Contains("behind the end of the file"));
  CHECK(refusal(small().entry("t", {100}, kF32, 32).bytes()) == Contains("takes 400 bytes, and 16 follow"));
  CHECK(refusal(small().entry("t", {1}, kF32, 0).bytes()) == Contains("share bytes"));
  CHECK(refusal(small().entry("t", {4}, 4, 0).bytes()) == Contains("is of type 4 of ggml, which is not known here"));
  CHECK(refusal(small().entry("t", {33}, kQ8_0, 0).bytes()) ==
        Contains("has rows of 33 numbers of type Q8_0; expected a multiple of 32"));
}

TEST_CASE("blocks are read as float32, which their rows and hashes are too") {
  const TemporaryFolder folder;
  std::string blocks;
  std::vector<float> numbers;
  for (int row = 0; row < 3; ++row) {
    blocks += std::string("\x00\x3C", 2);  // 1 in half precision
    for (int i = 0; i < 32; ++i) {
      blocks += static_cast<char>(static_cast<std::uint8_t>(i - 16 + row));
      numbers.push_back(static_cast<float>(i - 16 + row));
    }
  }
  const auto file = folder.write("m.gguf", GgufBytes().tensor("m", {32, 3}, kQ8_0, blocks).bytes());
  const auto checkpoint = Checkpoint::open(file);
  CHECK((checkpoint.type("m") == at::kFloat));
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const auto whole = checkpoint.tensor("m", {3, 32}, dtype).to(at::kFloat);
    CHECK(std::vector<float>(whole.const_data_ptr<float>(), whole.const_data_ptr<float>() + 96) == numbers);
  }
  const auto row = checkpoint.rows("m", {3, 32}, at::kFloat, 1, 2);
  CHECK(row.sizes().vec() == std::vector<std::int64_t>{1, 32});
  CHECK(row.const_data_ptr<float>()[0] == -15);
  const auto plain =
      Checkpoint::open(folder.write("plain.gguf", GgufBytes().tensor("m", {32, 3}, kF32, bytes_of(numbers)).bytes()));
  CHECK(checkpoint.sha256("m", {3, 32}) == plain.sha256("m", {3, 32}));
}

TEST_CASE("parts that are not what their names say are refused") {
  const TemporaryFolder folder;
  const auto part = [](std::uint32_t number, std::uint32_t count, const char* tensor) {
    GgufBytes file;
    file.value("split.no", 2, little_endian_bytes(number, 2)).value("split.count", 2, little_endian_bytes(count, 2));
    return file.numbers("unused", {}).tensor(tensor, {4}, kF32, kFour).bytes();
  };
  const auto first = folder.write("m-00001-of-00002.gguf", part(0, 2, "a"));
  const auto second = folder.write("m-00002-of-00002.gguf", part(1, 2, "b"));
  for (const auto& any : {first, second}) {
    CHECK(Checkpoint::open(any).names() == std::vector<std::string>{"a", "b"});
    CHECK(Checkpoint::open(any).files() == std::vector{first, second});
  }
  const auto refused = [&](const std::filesystem::path& file) {
    return message_of<Error>([&] { Checkpoint::open(file); });
  };
  CHECK(refused(folder.write("alone.gguf", part(0, 2, "a"))) == Contains("is one of 2 parts of a model"));
  folder.write("m-00002-of-00002.gguf", part(0, 2, "b"));
  CHECK(refused(first) == Contains("00002-of-00002.gguf: is not the part of the model that its name says"));
  folder.write("m-00002-of-00002.gguf", part(1, 2, "a"));
  CHECK(refused(first) == Contains("holds tensor \"a\", and so does m-00001-of-00002.gguf"));
  CHECK(refused(folder.write("x-00003-of-00002.gguf", part(1, 2, "a"))) == Contains("is part 3 of 2 by its name"));
}

// ---- Its config ----

GgufBytes model(const std::string& architecture) {
  GgufBytes file;
  file.text("general.architecture", architecture);
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::uint32_t>>{{"context_length", 32},
                                                                                     {"embedding_length", 8},
                                                                                     {"block_count", 2},
                                                                                     {"feed_forward_length", 12},
                                                                                     {"attention.head_count", 2}}) {
    file.number(architecture + "." + key, value);
  }
  return file.tensor("token_embd.weight", {8, 2}, kF32, kFour + kFour + kFour + kFour);
}

DecoderConfig config_of(const GgufBytes& file) {
  const TemporaryFolder folder;
  return read_gguf_config(folder.write("m.gguf", file.bytes()));
}

std::string config_refusal(const GgufBytes& file) {
  std::string message = message_of<Error>([&] { config_of(file); });
  CHECK(testing::is_one_line(message));
  return message;
}

GgufBytes llama() {
  return model("llama").real("llama.attention.layer_norm_rms_epsilon", 1e-5F);
}

GgufBytes layer_norm_model(const std::string& architecture) {
  return model(architecture).real(architecture + ".attention.layer_norm_epsilon", 1e-5F);
}

TEST_CASE("keys make the config that transformers would have") {
  const auto config = config_of(llama().number("llama.attention.head_count_kv", 1));
  CHECK(config.family == Family::kLlama);
  CHECK(config.layout == TensorLayout::kLlamaCpp);
  CHECK(config.vocab_size == 2);
  CHECK(config.width == 8);
  CHECK(config.head_width == 4);
  CHECK(config.kv_heads == 1);
  CHECK(config.mlp_width == 12);
  CHECK(config.tie_word_embeddings);
  CHECK(config.rotary.front().theta == 10000);
  CHECK(config.norm.epsilon == static_cast<double>(1e-5F));
  CHECK(config.remarks.empty());
  const auto gemma = config_of(model("gemma").real("gemma.attention.layer_norm_rms_epsilon", 1e-6F));
  CHECK(gemma.norm.type == Norm::Type::kRms);  // what is added to the weight is in the file
}

TEST_CASE("divisors of angles are a tensor of Llama's files") {
  const auto divisors = [](const std::string& bytes) {
    return llama().tensor("rope_freqs.weight", {bytes.size() / 4}, kF32, bytes);
  };
  const auto config = config_of(divisors(bytes_of<float>({1, 8})));
  CHECK(config.rotary.front().scaling == Rotary::Scaling::kEach);
  CHECK(config.rotary.front().divisors == std::vector<float>{1, 8});
  CHECK(config_refusal(divisors(kFour)) == Contains("is F32 of shape [4]; expected F32 of [2]"));
  CHECK(config_refusal(divisors(bytes_of<float>({1, 0}))) == Contains("not above 0"));
}

TEST_CASE("what is not known of a model is refused by name") {
  CHECK(config_refusal(model("jamba")) ==
        Contains("general.architecture is \"jamba\"; of GGUF files these can be traced: gpt2"));
  CHECK(config_refusal(GgufBytes().text("general.name", "x")) == Contains("has no general.architecture"));
  CHECK(config_refusal(llama().text("general.type", "adapter")) ==
        Contains("general.type is \"adapter\"; expected \"model\""));
  CHECK(config_refusal(model("llama")) == Contains("has no llama.attention.layer_norm_rms_epsilon; expected a number"));
  CHECK(config_refusal(model("qwen2").number("qwen2.expert_count", 8)) ==
        Contains("qwen2.expert_count is 8; expected none: a mixture of experts of this architecture"));
  CHECK(config_refusal(llama().number("llama.expert_count", 8)) ==
        Contains("has no llama.expert_used_count; expected a number"));
  CHECK(config_refusal(llama().real("llama.logit_scale", 2)) ==
        Contains("llama.logit_scale is 2; what this key changes is not known"));
  CHECK(config_refusal(llama().number("llama.rope.dimension_count", 2)) ==
        Contains("llama.rope.dimension_count is 2; expected 4"));
  CHECK(config_refusal(llama().text("llama.rope.scaling.type", "longrope")) ==
        Contains("expected none, linear or yarn"));
  CHECK(config_refusal(llama().flag("llama.attention.causal", false)) ==
        Contains("llama.attention.causal is false; expected true"));
  CHECK(config_refusal(llama().numbers("llama.attention.head_count_kv", {1, 2})) ==
        Contains("expected one number for all layers"));
  CHECK(config_refusal(llama().number("llama.attention.key_length", 0)) ==
        Contains("llama.attention.key_length is 0; expected a whole number from 1 up"));
  CHECK(config_refusal(layer_norm_model("gptneox").number("gptneox.attention.key_length", 0)) ==
        Contains("gptneox.attention.key_length is 0; expected a whole number from 1 up"));
  CHECK(config_of(llama().number("x.y", 1)).remarks.front() == Contains("these keys are passed over: x.y"));
}

TEST_CASE("a Llama file with experts is Mixtral's, and one without is none") {
  const auto mixtral = config_of(llama().number("llama.expert_count", 8).number("llama.expert_used_count", 2));
  CHECK(mixtral.family == Family::kMixtral);
  REQUIRE(mixtral.experts);
  CHECK(mixtral.experts->count == 8);
  CHECK(mixtral.experts->chosen == 2);
  CHECK(mixtral.experts->sums_to_one);
  const auto dense = config_of(llama().number("llama.expert_count", 0).number("llama.expert_used_count", 0));
  CHECK(dense.family == Family::kLlama);
  CHECK_FALSE(dense.experts);
}

TEST_CASE("the width of experts is a key's, or a tensor's") {
  const auto qwen = [] {
    return model("qwen2moe")
        .real("qwen2moe.attention.layer_norm_rms_epsilon", 1e-5F)
        .number("qwen2moe.expert_count", 2)
        .number("qwen2moe.expert_used_count", 1)
        .tensor("blk.0.ffn_gate_shexp.weight", {8, 3}, kF32, std::string(96, '\0'));
  };
  const auto of_tensors =
      config_of(qwen().tensor("blk.0.ffn_gate_exps.weight", {8, 5, 2}, kF32, std::string(320, '\0')));
  REQUIRE(of_tensors.experts);
  CHECK(of_tensors.experts->width == 5);
  CHECK(of_tensors.experts->shared_width == 3);
  CHECK_FALSE(of_tensors.experts->sums_to_one);
  const auto of_keys = config_of(
      qwen().number("qwen2moe.expert_feed_forward_length", 7).number("qwen2moe.expert_shared_feed_forward_length", 9));
  CHECK(of_keys.experts->width == 7);
  CHECK(of_keys.experts->shared_width == 9);
  CHECK(config_refusal(qwen()) == Contains("has no qwen2moe.expert_feed_forward_length; expected a number"));
}

TEST_CASE("what a family computes with one number only is refused with another") {
  CHECK(config_refusal(layer_norm_model("bloom")) ==
        Contains("bloom.feed_forward_length is 12; expected 4 times the embedding length, 8"));
  CHECK(config_refusal(model("mpt").real("mpt.attention.max_alibi_bias", 4)) ==
        Contains("mpt.feed_forward_length is 12; expected 4 times"));
  CHECK(config_refusal(layer_norm_model("starcoder").number("starcoder.attention.head_count_kv", 2)) ==
        Contains("starcoder.attention.head_count_kv is 2; expected 1, as all heads share"));
  CHECK(config_refusal(model("olmo").real("olmo.attention.layer_norm_epsilon", 1e-6F)) ==
        Contains("olmo.attention.layer_norm_epsilon is 1e-06; expected 1e-05"));
  CHECK(config_of(layer_norm_model("olmo")).norm.epsilon == 1e-5);
  CHECK(config_refusal(model("granite").flag("granite.rope.scaling.finetuned", false)) ==
        Contains("granite.rope.scaling.finetuned is false; expected true"));
  CHECK(config_refusal(layer_norm_model("cohere2")) == Contains("has no cohere2.logit_scale; expected a number"));
  CHECK(config_refusal(layer_norm_model("phi2").number("phi2.rope.dimension_count", 5)) ==
        Contains("phi2.rope.dimension_count is 5; expected 1 to 4, the width of a head"));
}

TEST_CASE("Phi 3's divisors come in two lengths, and with their own magnitude") {
  const auto phi = [] { return model("phi3").real("phi3.attention.layer_norm_rms_epsilon", 1e-5F); };
  const auto divisors = bytes_of<float>({1, 3});
  const auto both = [&] {
    return phi()
        .tensor("rope_factors_short.weight", {2}, kF32, divisors)
        .tensor("rope_factors_long.weight", {2}, kF32, bytes_of<float>({2, 9}));
  };
  const auto rotary = config_of(both().real("phi3.rope.scaling.attn_factor", 1.25F)).rotary.front();
  CHECK(rotary.divisors == std::vector<float>{1, 3});
  CHECK(rotary.magnitude == 1.25);
  CHECK(rotary.longest == 32);
  CHECK(config_refusal(phi().tensor("rope_factors_short.weight", {2}, kF32, divisors)) ==
        Contains("has one of rope_factors_short.weight and rope_factors_long.weight; expected both"));
  CHECK(config_refusal(phi().real("phi3.rope.scaling.attn_factor", 1.25F)) ==
        Contains("phi3.rope.scaling.attn_factor is 1.25; expected none, or 1"));
  CHECK(config_refusal(llama()
                           .tensor("rope_freqs.weight", {2}, kF32, divisors)
                           .tensor("rope_factors_long.weight", {2}, kF32, divisors)) ==
        Contains("has rope_freqs.weight and another scaling; expected one of them"));
}

}  // namespace
}  // namespace rometrace::gguf_test
