// The calling thread computes with the kernels' own mode while this lives. Not to be nested.
#pragma once

#include "kernels.h"

namespace salver {

class Entered {
 public:
  explicit Entered(const Kernels& kernels) : kernels_(kernels) { kernels_.enter(); }
  ~Entered() { kernels_.leave(); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  const Kernels& kernels_;
};

}  // namespace salver
