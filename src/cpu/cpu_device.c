/* cpu_device.c: the CPU as a device: its threads and its library of products */
#include "src/cpu/cpu.h"

#include <stdlib.h>

moai_device *device_open_cpu(int n_threads)
{
    moai_device *dev = xmalloc(sizeof *dev);

    if (n_threads > 0) omp_set_num_threads(n_threads);        /* before products_open: libraries ask OpenMP */
    dev->n_threads = omp_get_max_threads();
    dev->products = products_open();
    return dev;
}

void device_close_cpu(moai_device *dev)
{
    if (!dev) return;
    products_close(dev->products);
    free(dev->scratch);
    free(dev);
}

const char *device_products_cpu(const moai_device *dev) { return products_name(dev->products); }
