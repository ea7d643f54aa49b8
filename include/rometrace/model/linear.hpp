#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// Memory that packing needs for a moment, and what may be taken for second copies; shared by all products of a model,
/// several of which may be packed at once.
struct PackingScratch {
  std::mutex mutex;
  std::vector<at::Tensor> free;  // each grown when needed, as many as were packed at once
  std::int64_t room_for_transposes = std::numeric_limits<std::int64_t>::max();  // bytes, less those that are taken

  bool has_room() {  ///< for any transpose
    const std::scoped_lock lock(mutex);
    return room_for_transposes > 0;
  }
};

/// What some CPUs can do and others cannot. A value that is passed in, so that tests can suppose another CPU.
struct Processor {
  bool multiplies_bfloat16 = false;  ///< oneDNN does, with AVX-512 or what came after it

  /// The one that this runs on.
  static Processor here();
};

/// What the products of a model are made for. Autograd differentiates all of them with respect to what is multiplied,
/// never the weights.
enum class Products {
  kFast,      ///< weights packed where that helps; a gradient through a packed product packs the transpose as well
  kUnpacked,  ///< weights are used where they lie: no copy of any, and slower products
};

at::Tensor activated(const at::Tensor& x, Activation activation);  ///< each element of x

/// y = x W + b. On the CPU in float32 and bfloat16 the weight is "packed" when it is first used: copied into oneDNN's
/// own layout, which serves products of any number of rows, and stays for good. Otherwise, and where that is asked for,
/// it is used as it is. Safe to use from several threads.
///
/// Where x requires a gradient, the product's backward is dx = dy W^T. Of a packed weight the transpose is packed when
/// it is first needed, and stays too, as long as PackingScratch has room for it; else W is read again, as it is, each
/// time.
///
/// The columns of W may be divided into parts that are multiplied apart (queries | keys and values; gate | up).
class Linear {
 public:
  struct Part {
    at::Tensor weight;  ///< [in, out] with any strides
    at::Tensor bias;    ///< [out] or undefined, of the same dtype and device
  };

  /// Where the weights come from, when they are first used.
  struct Source {
    std::size_t parts = 1;
    std::function<std::vector<Part>()> read;  ///< called when the weights are first used, and by backwards
    std::function<void()> check;              ///< none, or called once they have been packed: throws if they changed
    std::function<void()> release;            ///< none, or called after that: they are no longer read
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
    bool packs_transpose = true;  ///< false: a backward reads W as it is, which is as fast for few rows of many columns
  };

  /// `scratch` may be shared by the products of a model; none: one of its own.
  Linear(Source source, Products products, std::shared_ptr<PackingScratch> scratch);

  /// Whether weights of this dtype on this device are packed, unless products are to be differentiable.
  static bool packs(at::ScalarType dtype, at::Device device);

  /// Whether this one is packed, or will be.
  bool packed() const;

  std::size_t parts() const;

  /// Reads the weights, and packs them, now.
  void prepare() const;

  /// [..., in] -> [..., width of the part], in the weight's dtype, whatever x's. Throws c10::Error where memory for the
  /// result, or for packing, is not to be had; it may be tried again.
  at::Tensor product(const at::Tensor& x, std::size_t part = 0) const;

  /// The same with the activation applied.
  at::Tensor activated_product(const at::Tensor& x, Activation activation, std::size_t part = 0) const;

 private:
  class Weights;
  std::shared_ptr<const Weights> weights_;  // which graphs of autograd keep
};

}  // namespace rometrace
